// Package kubernetes tests the files that run the example production in a cluster and behind proxies.
package kubernetes
