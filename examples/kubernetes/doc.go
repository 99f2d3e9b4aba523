// Package kubernetes has what runs the example production in a cluster and behind proxies. The package has only tests.
package kubernetes
