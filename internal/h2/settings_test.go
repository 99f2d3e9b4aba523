package h2

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/net/http2"
)

// known are the parameters that are never lost.
var known = []http2.SettingID{
	http2.SettingHeaderTableSize, http2.SettingEnablePush, http2.SettingMaxConcurrentStreams, http2.SettingInitialWindowSize,
	http2.SettingMaxFrameSize, http2.SettingMaxHeaderListSize, http2.SettingEnableConnectProtocol, http2.SettingNoRFC7540Priorities,
}

// payloadOf returns the payload of a SETTINGS frame.
func payloadOf(list ...http2.Setting) []byte { return AppendSettings(nil, list...)[FrameHeaderLen:] }

// unknown returns n settings that nobody knows, the first of them with the ID.
func unknown(n int, id http2.SettingID) []http2.Setting {
	list := make([]http2.Setting, n)
	for i := range list {
		list[i] = http2.Setting{ID: id + http2.SettingID(i), Val: uint32(i)}
	}
	return list
}

func TestSettings(t *testing.T) {
	t.Parallel()
	list := []http2.Setting{{ID: 4, Val: 1}, {ID: 0xffff, Val: 1<<32 - 1}, {ID: 4, Val: 2}}
	payload := payloadOf(list...)
	for n := range len(payload) + 1 {
		got := slices.Collect(Settings(payload[:n]))
		if diff := cmp.Diff(list[:n/SettingLen], got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%d bytes (-want +got):\n%s", n, diff)
		}
	}
	for s := range Settings(payload) {
		if s != list[0] {
			t.Errorf("got %v first", s)
		}
		break
	}
}

func TestCheckSettings(t *testing.T) {
	t.Parallel()
	const ok = http2.ErrCodeNo
	tests := []struct {
		name    string
		payload []byte
		want    http2.ErrCode
	}{
		{"empty", nil, ok},
		{"partial setting", make([]byte, 7), http2.ErrCodeFrameSize},
		{"as many as fit a frame", payloadOf(unknown(DefaultMaxFrameSize/SettingLen, 0x1000)...), ok},
		{"HEADER_TABLE_SIZE", payloadOf(http2.Setting{ID: 1, Val: 1<<32 - 1}), ok},
		{"ENABLE_PUSH", payloadOf(http2.Setting{ID: 2, Val: 1}), ok},
		{"ENABLE_PUSH 2", payloadOf(http2.Setting{ID: 2, Val: 2}), http2.ErrCodeProtocol},
		{"MAX_CONCURRENT_STREAMS", payloadOf(http2.Setting{ID: 3, Val: 1<<32 - 1}), ok},
		{"INITIAL_WINDOW_SIZE", payloadOf(http2.Setting{ID: 4, Val: 1<<31 - 1}), ok},
		{"INITIAL_WINDOW_SIZE 2^31", payloadOf(http2.Setting{ID: 4, Val: 1 << 31}), http2.ErrCodeFlowControl},
		{"MAX_FRAME_SIZE 2^14-1", payloadOf(http2.Setting{ID: 5, Val: 1<<14 - 1}), http2.ErrCodeProtocol},
		{"MAX_FRAME_SIZE 2^14", payloadOf(http2.Setting{ID: 5, Val: 1 << 14}), ok},
		{"MAX_FRAME_SIZE 2^24-1", payloadOf(http2.Setting{ID: 5, Val: 1<<24 - 1}), ok},
		{"MAX_FRAME_SIZE 2^24", payloadOf(http2.Setting{ID: 5, Val: 1 << 24}), http2.ErrCodeProtocol},
		{"MAX_HEADER_LIST_SIZE", payloadOf(http2.Setting{ID: 6}), ok},
		{"ENABLE_CONNECT_PROTOCOL 2", payloadOf(http2.Setting{ID: 8, Val: 2}), http2.ErrCodeProtocol},
		{"NO_RFC7540_PRIORITIES 2", payloadOf(http2.Setting{ID: 9, Val: 2}), http2.ErrCodeProtocol},
		{"the first of two faults", payloadOf(http2.Setting{ID: 4, Val: 1 << 31}, http2.Setting{ID: 2, Val: 2}), http2.ErrCodeFlowControl},
		{"the first of two faults, in the other order", payloadOf(http2.Setting{ID: 2, Val: 2}, http2.Setting{ID: 4, Val: 1 << 31}), http2.ErrCodeProtocol},
		{"a fault that a later value would mend", payloadOf(http2.Setting{ID: 2, Val: 2}, http2.Setting{ID: 2}), http2.ErrCodeProtocol},
	}
	for _, tt := range tests {
		got := ok
		if err := CheckSettings(tt.payload); err != nil {
			got = err.Code
		}
		if got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestMergeSettings(t *testing.T) {
	t.Parallel()
	var everyKnown []http2.Setting
	for _, id := range known {
		everyKnown = append(everyKnown, http2.Setting{ID: id, Val: 1})
	}
	everyKnown[4].Val = DefaultMaxFrameSize
	few, many := unknown(2, 0x1000), unknown(DefaultMaxFrameSize/SettingLen, 0x1000)
	tests := []struct {
		name   string
		frames [][]http2.Setting
		want   []http2.Setting
	}{
		{"nothing", nil, nil},
		{"an empty frame", [][]http2.Setting{{}}, nil},
		{"a value twice", [][]http2.Setting{{{ID: 4, Val: 1}, {ID: 6, Val: 7}, {ID: 4, Val: 2}}}, []http2.Setting{{ID: 4, Val: 2}, {ID: 6, Val: 7}}},
		{"a value in two frames", [][]http2.Setting{{{ID: 4, Val: 1}, {ID: 6, Val: 7}}, {{ID: 4, Val: 2}}}, []http2.Setting{{ID: 4, Val: 2}, {ID: 6, Val: 7}}},
		{"unknown ones in order", [][]http2.Setting{{few[1], {ID: 4, Val: 2}, few[0]}}, []http2.Setting{few[1], {ID: 4, Val: 2}, few[0]}},
		{"known ones after many unknown", [][]http2.Setting{many, everyKnown}, slices.Concat(many[:MaxUnknownSettings], everyKnown)},
		{
			"known ones between many unknown", [][]http2.Setting{everyKnown[:4], many, everyKnown[4:]},
			slices.Concat(everyKnown[:4], many[:MaxUnknownSettings], everyKnown[4:]),
		},
		{
			"an unknown one that is kept still changes", [][]http2.Setting{many, {{ID: few[1].ID, Val: 77}}},
			slices.Concat(few[:1], []http2.Setting{{ID: few[1].ID, Val: 77}}, many[2:MaxUnknownSettings]),
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var list []http2.Setting
			var p Parser
			data := preface
			for _, frame := range tt.frames {
				list = MergeSettings(list, payloadOf(frame...))
				data = join(data, AppendSettings(nil, frame...))
			}
			if diff := cmp.Diff(tt.want, list); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			p.Parse(data)
			if diff := cmp.Diff(tt.want, p.Settings(), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("Parser (-want +got):\n%s", diff)
			}
		})
	}
}

// TestMergeSettingsAtRandom compares MergeSettings with a map.
func TestMergeSettingsAtRandom(t *testing.T) {
	t.Parallel()
	for seed := range uint64(200) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(seed, 1))
			var list []http2.Setting
			values := map[http2.SettingID]uint32{}
			var order []http2.SettingID // in which those that are kept appeared first
			strangers := 0
			few := 1 + rnd.IntN(100)
			for range 1 + rnd.IntN(5) {
				var payload []byte
				for range rnd.IntN(100) {
					s := http2.Setting{ID: http2.SettingID(10 + rnd.IntN(few)), Val: rnd.Uint32()}
					if rnd.IntN(10) == 0 {
						s.ID = known[rnd.IntN(len(known))]
					}
					payload = binary.BigEndian.AppendUint16(payload, uint16(s.ID))
					payload = binary.BigEndian.AppendUint32(payload, s.Val)

					if _, seen := values[s.ID]; !seen {
						isKnown := slices.Contains(known, s.ID)
						if !isKnown {
							strangers++
						}
						if isKnown || strangers <= MaxUnknownSettings {
							order = append(order, s.ID)
						}
					}
					values[s.ID] = s.Val
				}
				list = MergeSettings(list, payload)
			}
			var want []http2.Setting
			for _, id := range order {
				want = append(want, http2.Setting{ID: id, Val: values[id]})
			}
			if diff := cmp.Diff(want, list); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
