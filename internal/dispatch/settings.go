package dispatch

import (
	"slices"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/h2"
)

// By default, grpc-go begins with a SETTINGS frame that changes nothing for a client that was sent the early one. Such a
// frame is not sent: the client would have to acknowledge it, and the server to read that.

// isKnown reports whether a SETTINGS frame of the server, which has sent no other to the client, says only what the
// client goes by.
func (v *Conn) isKnown(payload []byte) bool {
	c := v.c
	if !c.spoken || len(c.toClient) > 0 || v.hasSet {
		return false
	}
	for s := range h2.Settings(payload) {
		if !c.d.isInitial(s) {
			return false
		}
	}
	return true
}

// isInitial reports whether a setting is that of the early SETTINGS or else the initial value of RFC 9113, Section
// 6.5.2.
func (d *Dispatcher) isInitial(s http2.Setting) bool {
	for _, early := range slices.Backward(d.EarlySettings) {
		if early.ID == s.ID {
			return early.Val == s.Val
		}
	}
	switch s.ID {
	case http2.SettingHeaderTableSize:
		return s.Val == h2.DefaultTableSize
	case http2.SettingInitialWindowSize:
		return s.Val == h2.DefaultWindow
	case http2.SettingMaxFrameSize:
		return s.Val == h2.DefaultMaxFrameSize
	}
	return false
}

// answerSettings has the server read the acknowledgement of a SETTINGS frame where the client has acknowledged the early
// one: what comes before, the client may have sent without knowing the settings. It reports false if the server has begun
// to read. The caller holds mu, and is not the one that reads.
//
//go:noinline // see Conn.Write
func (v *Conn) answerSettings() bool {
	if !v.rmu.TryLock() {
		return false
	}
	defer v.unlockRead()
	if v.begun.Load() || v.clear < len(h2.Preface)+h2.FrameHeaderLen {
		return false
	}
	preface := len(h2.Preface) + h2.FrameLen(h2.ParseFrameHeader(v.buf[len(h2.Preface):]))
	v.buf = slices.Insert(v.buf, preface+v.ackAt, h2.AppendSettingsACK(nil)...)
	v.clear += h2.FrameHeaderLen
	return true
}
