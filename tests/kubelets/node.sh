#!/bin/sh
# One node: containerd, kube-proxy and kubelet. Runs as process 1 of namespaces of its own (network, mounts, processes),
# so that all of it ends with this shell.
#   node.sh FOLDER NAME ADDRESS GROUP PROGRAMS
# configuration, images and logs in FOLDER, the containers in the control group GROUP, kubelet and kube-proxy in PROGRAMS.
set -eu
folder=$1 name=$2 address=$3 group=$4 programs=$5

mount --make-rprivate /
# Nothing of the host's is read or written.
for place in /run /var/lib /var/log; do mount -t tmpfs -o mode=755 tmpfs "$place"; done
mkdir -p /var/lib/kubelet
mount --bind /var/lib/kubelet /var/lib/kubelet
mount --make-rshared /var/lib/kubelet
mount -t bpf bpf /sys/fs/bpf
# A kubelet sets these for the whole kernel.
for key in vm/overcommit_memory vm/panic_on_oom kernel/panic kernel/panic_on_oops kernel/keys/root_maxkeys kernel/keys/root_maxbytes; do
    [ -e "/proc/sys/$key" ] || continue
    file=$folder/$(echo "$key" | tr / -)
    cat "/proc/sys/$key" > "$file"
    mount --bind "$file" "/proc/sys/$key"
done
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then mkdir -p "/sys/fs/cgroup$group"; else
    for controller in /sys/fs/cgroup/*/; do mkdir -p "$controller$group"; done
fi

containerd --config "$folder/containerd.toml" > "$folder/containerd.log" 2>&1 &
until ctr version > /dev/null 2>&1; do sleep 0.1; done
for image in "$folder"/../images/*.tar; do ctr -n k8s.io images import "$image"; done
"$programs/kube-proxy" --config "$folder/proxy.yaml" --hostname-override "$name" > "$folder/kube-proxy.log" 2>&1 &
"$programs/kubelet" --config "$folder/kubelet.yaml" --kubeconfig "$folder/kubeconfig" --root-dir /var/lib/kubelet \
    --cert-dir /var/lib/kubelet/pki --node-ip "$address" --hostname-override "$name" > "$folder/kubelet.log" 2>&1 &
# Reaps what containers leave, until it is killed.
while :; do wait; sleep 1; done
