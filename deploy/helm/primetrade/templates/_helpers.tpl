{{/* Of what is in a pod: name of the service as a label, its port, and the secrets that it has a use for. */}}
{{- define "primetrade.services" -}}
commandApi:
  name: command-api
  port: 8081
  secrets: [PRIMETRADE_SECRET, PRIMETRADE_SECRET_PREVIOUS, PRIMETRADE_DATABASE_URL, PRIMETRADE_DATABASE_PASSWORD, PRIMETRADE_READ_DATABASE_URL, PRIMETRADE_READ_DATABASE_PASSWORD, PRIMETRADE_REDIS_URL, PRIMETRADE_KAFKA_SASL_PASSWORD]
queryApi:
  name: query-api
  port: 8082
  secrets: [PRIMETRADE_SECRET, PRIMETRADE_SECRET_PREVIOUS, PRIMETRADE_READ_DATABASE_URL, PRIMETRADE_READ_DATABASE_PASSWORD, PRIMETRADE_READ_REPLICA_URL, PRIMETRADE_READ_REPLICA_PASSWORD, PRIMETRADE_REDIS_URL]
projector:
  name: projector
  port: 8083
  secrets: [PRIMETRADE_SECRET, PRIMETRADE_SECRET_PREVIOUS, PRIMETRADE_DATABASE_URL, PRIMETRADE_DATABASE_PASSWORD, PRIMETRADE_READ_DATABASE_URL, PRIMETRADE_READ_DATABASE_PASSWORD, PRIMETRADE_REDIS_URL, PRIMETRADE_KAFKA_SASL_PASSWORD]
{{- end }}

{{- define "primetrade.fullname" -}}
{{- if contains "primetrade" .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}{{ else }}{{ printf "%s-primetrade" .Release.Name | trunc 40 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "primetrade.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* Arguments: root, component. */}}
{{- define "primetrade.selector" -}}
app.kubernetes.io/name: primetrade
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{- define "primetrade.labels" -}}
{{ include "primetrade.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
{{- end }}

{{- define "primetrade.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "primetrade.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Over zones first, then over nodes; rather than nowhere, on the same. Arguments: root, component. */}}
{{- define "primetrade.spread" -}}
{{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
- topologyKey: {{ . }}
  maxSkew: 1
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels: {{- include "primetrade.selector" $ | nindent 6 }}
{{- end }}
{{- end }}

{{/* The settings of a service. A database given to none is another one's: without a URL of its own, reads go to that of
the log. Arguments: root, secrets (the names that it has a use for), logins (what it has of its own: setting, and key or path). */}}
{{- define "primetrade.secretNames" -}}
{{- $given := concat .root.Values.secrets.keys (keys .root.Values.secrets.files) (keys (.logins | default dict)) | uniq }}
{{- $reads := or (has "PRIMETRADE_READ_DATABASE_URL" $given) (hasKey .root.Values.settings "PRIMETRADE_READ_DATABASE_HOST") }}
{{- $wanted := ternary .secrets (concat .secrets (list "PRIMETRADE_DATABASE_URL" "PRIMETRADE_DATABASE_PASSWORD")) $reads | uniq }}
{{- $names := list }}
{{- range $given }}{{ if has . $wanted }}{{ $names = append $names . }}{{ end }}{{ end }}
{{- $names | sortAlpha | toJson }}
{{- end }}

{{/* Pages that come by way of the ingress are the API's own, which sees the gateway's plain HTTP. */}}
{{- define "primetrade.origins" -}}
{{- $own := ternary (printf "https://%s" .Values.ingress.host) "" .Values.ingress.enabled }}
{{- .Values.settings.PRIMETRADE_CORS_ORIGINS | default $own }}
{{- end }}

{{- define "primetrade.env" -}}
{{- range $name, $value := set (deepCopy .root.Values.settings) "PRIMETRADE_CORS_ORIGINS" (include "primetrade.origins" .root) }}
{{- if $value }}
- name: {{ $name }}
  value: {{ $value | toString | quote }}
{{- end }}
{{- end }}
{{- range include "primetrade.secretNames" . | fromJsonArray }}
- name: {{ . }}_FILE
  {{- $mounted := printf "/run/secrets/primetrade/%s" . }}
  {{- $own := get ($.logins | default dict) . }}
  {{- if $own }}
  value: {{ ternary $own $mounted (hasPrefix "/" $own) | quote }}
  {{- else }}
  value: {{ get $.root.Values.secrets.files . | default $mounted | quote }}
  {{- end }}
{{- end }}
{{- end }}

{{/* The files of those secrets that come from existingSecret. */}}
{{- define "primetrade.secretItems" -}}
{{- range include "primetrade.secretNames" . | fromJsonArray }}
{{- $own := get ($.logins | default dict) . }}
{{- if $own }}
{{- if not (hasPrefix "/" $own) }}
- {key: {{ $own }}, path: {{ . }}}
{{- end }}
{{- else if not (hasKey $.root.Values.secrets.files .) }}
- {key: {{ . }}, path: {{ . }}}
{{- end }}
{{- end }}
{{- end }}
