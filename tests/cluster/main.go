// Program kube is a Kubernetes control plane for tests: etcd, kube-apiserver, kube-controller-manager and
// kubectl in one binary, each under the flags of the original. The name that it is called by, or else the first
// argument, says which; tests/cluster/build makes the links.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/server/v3/etcdmain"
	"k8s.io/component-base/cli"
	_ "k8s.io/component-base/logs/json/register"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	controllermanager "k8s.io/kubernetes/cmd/kube-controller-manager/app"
)

func main() {
	if len(os.Args) > 1 && programs[filepath.Base(os.Args[0])] == nil {
		os.Args = os.Args[1:]
	}
	run := programs[filepath.Base(os.Args[0])]
	if run == nil {
		fmt.Fprintln(os.Stderr, "usage: kube etcd|kube-apiserver|kube-controller-manager|kubectl [flags]")
		os.Exit(2)
	}
	run()
}

var programs = map[string]func(){
	"etcd":                    func() { etcdmain.Main(os.Args) },
	"kube-apiserver":          func() { command(apiserver.NewAPIServerCommand()) },
	"kube-controller-manager": func() { command(controllermanager.NewControllerManagerCommand()) },
	"kubectl":                 func() { command(kubectl.NewDefaultKubectlCommand()) },
}

func command(c *cobra.Command) {
	c.SetArgs(os.Args[1:])
	os.Exit(cli.Run(c))
}
