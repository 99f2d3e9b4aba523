package h2

import (
	"encoding/binary"
	"iter"

	"golang.org/x/net/http2"
)

// MaxUnknownSettings is how many unknown parameters [MergeSettings] keeps.
const MaxUnknownSettings = 32

// Settings returns the settings in the payload of a SETTINGS frame, in order. It ignores a partial setting at the end,
// which [CheckFrameHeader] refuses.
func Settings(payload []byte) iter.Seq[http2.Setting] {
	return func(yield func(http2.Setting) bool) {
		for ; len(payload) >= SettingLen; payload = payload[SettingLen:] {
			s := http2.Setting{ID: http2.SettingID(binary.BigEndian.Uint16(payload)), Val: binary.BigEndian.Uint32(payload[2:])}
			if !yield(s) {
				return
			}
		}
	}
}

// CheckSettings checks the payload of a SETTINGS frame: its length, and the values of the parameters that have a range.
// If several are wrong, it reports the first, as servers do.
func CheckSettings(payload []byte) *ConnError {
	if len(payload)%SettingLen != 0 {
		return errPartialSetting()
	}
	for s := range Settings(payload) {
		switch s.ID {
		case http2.SettingEnablePush, // RFC 9113, Section 6.5.2.
			http2.SettingEnableConnectProtocol, // RFC 8441, Section 3.
			http2.SettingNoRFC7540Priorities:   // RFC 9218, Section 2.1.
			if s.Val > 1 {
				return ProtocolError("SETTINGS_" + s.ID.String() + " other than 0 or 1")
			}
		case http2.SettingInitialWindowSize: // RFC 9113, Section 6.5.2.
			if s.Val > MaxWindow {
				return FlowControlError("SETTINGS_INITIAL_WINDOW_SIZE too large")
			}
		case http2.SettingMaxFrameSize: // RFC 9113, Section 6.5.2.
			if s.Val < DefaultMaxFrameSize || s.Val > LargestFrameSize {
				return ProtocolError("SETTINGS_MAX_FRAME_SIZE out of range")
			}
		}
	}
	return nil
}

// errPartialSetting is RFC 9113, Section 6.5.
func errPartialSetting() *ConnError { return FrameSizeError("SETTINGS frame with a partial setting") }

// MergeSettings returns list, which has each parameter once, with what the payload of a further SETTINGS frame sets: a
// later value replaces an earlier one (RFC 9113, Section 6.5), and a new parameter comes last.
//
// Parameters that are known are never lost. Of the unknown ones only the first MaxUnknownSettings are kept, so that a
// peer cannot make the list long: a receiver ignores the ones that it does not know (RFC 9113, Section 6.5.2), and few
// peers send more than one.
func MergeSettings(list []http2.Setting, payload []byte) []http2.Setting {
	for s := range Settings(payload) {
		list = mergeSetting(list, s)
	}
	return list
}

func mergeSetting(list []http2.Setting, s http2.Setting) []http2.Setting {
	unknown := 0
	for i := range list {
		if list[i].ID == s.ID {
			list[i].Val = s.Val
			return list
		}
		if !isKnown(list[i].ID) {
			unknown++
		}
	}
	if isKnown(s.ID) || unknown < MaxUnknownSettings {
		list = append(list, s)
	}
	return list
}

// isKnown reports whether a parameter is one of RFC 9113, Section 6.5.2, RFC 8441, Section 3 or RFC 9218, Section 2.1.
func isKnown(id http2.SettingID) bool {
	switch id {
	case http2.SettingHeaderTableSize,
		http2.SettingEnablePush,
		http2.SettingMaxConcurrentStreams,
		http2.SettingInitialWindowSize,
		http2.SettingMaxFrameSize,
		http2.SettingMaxHeaderListSize,
		http2.SettingEnableConnectProtocol,
		http2.SettingNoRFC7540Priorities:
		return true
	}
	return false
}
