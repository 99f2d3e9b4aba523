package oneport

import "slices"

// A hostRun is an index of consecutive routes that match by host alone, so that on a port for a thousand hosts a
// connection is not compared with each. All of its routes are undecided about a connection, or none is.
type hostRun struct {
	start, end int            // where it is in the list of routes, end excluded
	first      map[string]int // the first route for each host
}

// indexHosts finds the runs among routes. It is called before connections are decided, and once: routes that are added
// after that are asked one by one.
func indexHosts(routes []*route) {
	for start := 0; start < len(routes); {
		end := start
		run := &hostRun{start: start, first: make(map[string]int)}
		for ; end < len(routes) && routes[end].byHostAlone(); end++ {
			for _, m := range routes[end].matchers {
				for _, host := range m.(*builtin).hosts {
					if _, ok := run.first[host]; !ok {
						run.first[host] = end
					}
				}
			}
		}
		if end-start > 1 {
			run.end = end
			for _, rt := range routes[start:end] {
				rt.run = run
			}
		}
		start = max(end, start+1)
	}
}

// byHostAlone reports whether a route takes a connection for its host, whatever else it is.
func (rt *route) byHostAlone() bool {
	byMore := func(m Matcher) bool {
		b, ok := m.(*builtin)
		return !ok || b.hosts == nil
	}
	return len(rt.matchers) > 0 && !rt.upgrade && rt.tls == nil && rt.requests == nil &&
		!slices.ContainsFunc(rt.matchers, byMore)
}

// next returns the first route from i on, in the run, that has to be asked about a connection, or the end of the run.
func (run *hostRun) next(i int, p *Preview) int {
	host, name, verdict := p.host()
	switch verdict {
	case Undecided:
		return i
	case No:
		return run.end
	}
	found := run.end
	for _, h := range [...]string{host, name} {
		if at, ok := run.first[h]; ok {
			found = min(found, at)
		}
	}
	return max(i, found)
}

// effort is how many questions it takes at most to find the route of a connection.
func effort(routes []*route) int {
	n := 0
	for i, rt := range routes {
		if rt.run == nil || rt.run.start == i {
			n++
		}
	}
	return n
}
