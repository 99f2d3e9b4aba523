package load

import (
	"net"
	"time"

	"github.com/oneport-go/oneport/benchmarks/internal/contender"
)

// Slow puts a proxy with a round-trip time in front of each of the addresses. The function that it returns ends them.
func (e *Env) Slow(rtt time.Duration) (end func(), err error) {
	proxies := make(map[string]*slowProxy)
	end = func() {
		for _, p := range proxies {
			p.close()
		}
	}
	behind := func(address string) string {
		if err != nil {
			return ""
		}
		if proxies[address] == nil {
			var p *slowProxy
			p, err = newSlowProxy(rtt, func() (net.Conn, error) { return net.Dial("tcp", address) })
			if err != nil {
				return ""
			}
			proxies[address] = p
		}
		return proxies[address].address()
	}
	e.Addresses = contender.Addresses{HTTP: behind(e.Addresses.HTTP), GRPC: behind(e.Addresses.GRPC)}
	if err != nil {
		end()
		return nil, err
	}
	return end, nil
}
