{{- define "ironcast.labels" -}}
app.kubernetes.io/name: ironcast
{{- end }}

{{- define "ironcast.image" -}}
{{- with .Values.image -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- /* Port of admin.address. */ -}}
{{- define "ironcast.adminPort" -}}
{{- .Values.admin.address | splitList ":" | last -}}
{{- end }}

{{- /* The address that the kubelet probes: admin.address, or loopback where it is every address. */ -}}
{{- define "ironcast.adminHost" -}}
{{- $host := .Values.admin.address | trimSuffix (printf ":%s" (include "ironcast.adminPort" .)) | trimPrefix "[" | trimSuffix "]" -}}
{{- if or (eq $host "0.0.0.0") (eq $host "::") }}127.0.0.1{{ else }}{{ $host }}{{ end -}}
{{- end }}

{{- /* No packet path, no programs to load; no port 179, none to bind. */ -}}
{{- define "ironcast.capabilities" -}}
NET_ADMIN{{ if ne .Values.daemon.datapath "none" }}, BPF, PERFMON{{ end }}, NET_RAW{{ if .Values.daemon.listen }}, NET_BIND_SERVICE{{ end }}, SYS_NICE
{{- end }}

{{- /* What belongs together and the schema cannot say in words. */ -}}
{{- define "ironcast.check" -}}
{{- $host := include "ironcast.adminHost" . -}}
{{- $loopback := and (or (hasPrefix "127." $host) (eq $host "::1")) (not (hasPrefix "0.0.0.0:" .Values.admin.address)) (not (hasPrefix "[::]:" .Values.admin.address)) -}}
{{- if and (not $loopback) (not .Values.admin.public) -}}
{{- fail (printf "admin.address %s can be reached from other hosts and has no authentication: use a loopback address, or set admin.public: true" .Values.admin.address) -}}
{{- end -}}
{{- range $name := list "podMonitor" "serviceMonitor" -}}
{{- if and (get $.Values.monitoring $name).enabled $loopback -}}
{{- fail (printf "monitoring.%s.enabled: Prometheus does not reach admin.address %s: set admin.address: 0.0.0.0:7472 (or [::]:7472) and admin.public: true" $name $.Values.admin.address) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.monitoring.podMonitor.enabled .Values.monitoring.serviceMonitor.enabled -}}
{{- fail "monitoring: podMonitor and serviceMonitor find the same daemons, each would be counted twice: enable one of them" -}}
{{- end -}}
{{- if and (eq (toString .Values.daemon.unclassed) "false") (not .Values.daemon.loadBalancerClass) -}}
{{- fail "daemon.unclassed: false without daemon.loadBalancerClass leaves no Service to take: add the class" -}}
{{- end -}}
{{- if ne (eq .Values.seccompProfile.type "Localhost") (not (empty .Values.seccompProfile.localhostProfile)) -}}
{{- fail "seccompProfile: localhostProfile belongs to type Localhost, and to no other" -}}
{{- end -}}
{{- if and .Values.namespace.create (eq .Release.Namespace "default") -}}
{{- fail "namespace.create: true needs a namespace of its own: add --namespace ironcast-system" -}}
{{- end -}}
{{- end }}

{{- define "ironcast.args" -}}
- run
- --log-format={{ .Values.daemon.logFormat }}
{{- with .Values.daemon }}
{{- if .loadBalancerClass }}
- --load-balancer-class={{ .loadBalancerClass }}
{{- end }}
{{- if not (kindIs "invalid" .unclassed) }}
- --unclassed={{ .unclassed }}
{{- end }}
{{- if .ignoreExcludeLabel }}
- --ignore-exclude-label
{{- end }}
{{- if ne .datapath "auto" }}
- --datapath={{ .datapath }}
{{- end }}
{{- if ne .delivery "stack" }}
- --delivery={{ .delivery }}
{{- end }}
{{- range .uplinks }}
- --uplink={{ . }}
{{- end }}
{{- if .maxFlows }}
- --max-flows={{ int .maxFlows }}
{{- end }}
{{- range .listen }}
- {{ printf "--listen=%s" . | quote }}
{{- end }}
{{- range .bmp }}
- {{ printf "--bmp=%s" . | quote }}
{{- end }}
{{- if not (kindIs "invalid" .drainWait) }}
- --drain-wait={{ int .drainWait }}
{{- end }}
{{- if ne .onCordon "drain" }}
- --on-cordon={{ .onCordon }}
{{- end }}
{{- range .maintenanceTaints }}
- {{ printf "--maintenance-taint=%s" . | quote }}
{{- end }}
{{- if ne .onShutdown "restart" }}
- --on-shutdown={{ .onShutdown }}
{{- end }}
{{- if .clusterSecret.name }}
- --cluster-secret=/etc/ironcast/cluster-secret
{{- end }}
{{- end }}
{{- if ne .Values.admin.address "127.0.0.1:7472" }}
- {{ printf "--admin=%s" .Values.admin.address | quote }}
{{- end }}
{{- if .Values.admin.public }}
- --admin-public
{{- end }}
{{- range .Values.daemon.extraArgs }}
- {{ . | quote }}
{{- end }}
{{- end }}
