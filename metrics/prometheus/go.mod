module github.com/oneport-go/oneport/metrics/prometheus

go 1.26.0

replace github.com/oneport-go/oneport => ../..

require (
	github.com/google/go-cmp v0.7.0
	github.com/oneport-go/oneport v0.0.0
	github.com/prometheus/client_golang v1.25.0
	go.uber.org/goleak v1.3.0
	google.golang.org/grpc v1.85.0
)
