package dispatch

import (
	"encoding/binary"
	"time"
)

// pings finds the server that has sent a PING frame, by the payload that it was given towards the client.
type pings struct {
	last uint64
	sent map[[8]byte]ping
}

type ping struct {
	server  *Conn
	payload [8]byte
	at      instant
}

// maxPings is how many PING frames of servers wait for the client. What a server asks beyond that is not passed on.
const maxPings = 100

func (p *pings) ask(v *Conn, payload [8]byte) (token [8]byte, ok bool) {
	if len(p.sent) >= maxPings {
		return token, false
	}
	if p.sent == nil {
		p.sent = make(map[[8]byte]ping)
	}
	p.last++
	copy(token[:4], "1prt")
	binary.BigEndian.PutUint32(token[4:], uint32(p.last))
	p.sent[token] = ping{v, payload, now()}
	return token, true
}

func (p *pings) answered(token [8]byte) (ping, bool) {
	asked, ok := p.sent[token]
	delete(p.sent, token)
	return asked, ok
}

// clientSilent reports whether the client has not answered a PING frame of the server for so long that the server may
// have found out by it that the client is gone.
func (v *Conn) clientSilent() bool {
	c := v.c
	if v == c.pass && c.asked > 0 && since(c.askedAt) >= silence {
		return true
	}
	for _, p := range c.pings.sent {
		if p.server == v && since(p.at) >= silence {
			return true
		}
	}
	return false
}

const silence = time.Second
