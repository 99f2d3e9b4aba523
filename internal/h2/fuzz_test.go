package h2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// header is a frame header with its place in the connection.
type header struct {
	http2.FrameHeader
	offset int
}

func (h header) end() int { return h.offset + FrameHeaderLen + int(h.Length) }

// headersOf returns the frame headers in data, the last of which may belong to a frame that is not complete.
func headersOf(data []byte) []header {
	var hs []header
	for at := len(Preface); len(data)-at >= FrameHeaderLen; {
		fh, err := http2.ReadFrameHeader(bytes.NewReader(data[at:]))
		if err != nil {
			panic(err)
		}
		h := header{fh, at}
		hs = append(hs, h)
		at = h.end()
	}
	return hs
}

// framerResult is what http2.Framer makes of a connection.
type framerResult struct {
	// frame is the index of the frame that settles it, which is the last of the first header block or the first that is
	// refused. It is -1 if the Framer wants more.
	frame   int
	headers *http2.MetaHeadersFrame
	code    http2.ErrCode // of the connection error
	stream  bool          // it is a stream error in the header block
}

// readFramer reads data with http2.Framer up to the end of the first header block.
func readFramer(t *testing.T, data []byte, hs []header) framerResult {
	r := bytes.NewReader(data[len(Preface):])
	framer := http2.NewFramer(io.Discard, r)
	framer.SetMaxReadFrameSize(DefaultMaxFrameSize)
	framer.ReadMetaHeaders = hpack.NewDecoder(DefaultTableSize, nil)
	// Larger than the limit of any Parser here, so that what remains of the Framer's errors are those of the protocol.
	framer.MaxHeaderListSize = 1 << 20
	for {
		frame, err := framer.ReadFrame()
		consumed := len(data) - r.Len()
		last := -1
		for i, h := range hs {
			if h.offset < consumed {
				last = i
			}
		}
		var connErr http2.ConnectionError
		var streamErr http2.StreamError
		switch {
		case err == nil:
			if mh, ok := frame.(*http2.MetaHeadersFrame); ok {
				return framerResult{frame: last, headers: mh}
			}
		case errors.As(err, &connErr):
			if inBlock(hs, last) || !ignoredByUs(hs[last], http2.ErrCode(connErr)) {
				return framerResult{frame: last, code: http2.ErrCode(connErr)}
			}
		case errors.As(err, &streamErr):
			if isHeaderBlock(hs[last].Type) {
				return framerResult{frame: last, code: streamErr.Code, stream: true}
			}
		case errors.Is(err, http2.ErrFrameTooLarge):
			return framerResult{frame: last, code: http2.ErrCodeFrameSize}
		case err == io.ErrUnexpectedEOF && last >= 0 && hs[last].end() <= len(data) && consumed == hs[last].end():
			// The Framer's way to say that a frame has no room for its fields.
			return framerResult{frame: last, code: http2.ErrCodeFrameSize}
		case err == io.EOF, err == io.ErrUnexpectedEOF:
			return framerResult{frame: -1}
		default:
			t.Fatalf("Framer: %v", err)
		}
	}
}

func isHeaderBlock(typ http2.FrameType) bool {
	return typ == http2.FrameHeaders || typ == http2.FrameContinuation
}

// inBlock reports whether the frame with the index i comes where only a CONTINUATION can.
func inBlock(hs []header, i int) bool {
	return i > 0 && isHeaderBlock(hs[i-1].Type) && !hs[i-1].Flags.Has(endHeaders)
}

// ignoredByUs reports whether the Framer makes a connection error of what is the server's to judge.
func ignoredByUs(h header, code http2.ErrCode) bool {
	switch h.Type {
	case http2.FramePriority:
		// RFC 9113, Section 6.3: this is a stream error.
		return h.Length != 5 && h.StreamID != 0 && code == http2.ErrCodeFrameSize
	case http2.FramePriorityUpdate:
		// RFC 9113, Section 5.5: a server that does not know the frame ignores it.
		return true
	}
	return false
}

// block is the first header block of a connection.
type block struct {
	first, last int // the frames that it is in
	fragments   [][]byte
}

// blockOf returns the header block that ends with the frame last.
func blockOf(t testing.TB, data []byte, hs []header, last int) block {
	first := last
	for hs[first].Type == http2.FrameContinuation {
		first--
	}
	b := block{first: first, last: last}
	framer := http2.NewFramer(io.Discard, bytes.NewReader(data[hs[first].offset:]))
	for range last - first + 1 {
		f, err := framer.ReadFrame()
		if err != nil {
			t.Fatalf("Framer in a header block: %v", err)
		}
		b.fragments = append(b.fragments, slices.Clone(f.(interface{ HeaderBlockFragment() []byte }).HeaderBlockFragment()))
	}
	return b
}

// decodeBlock decodes a header block at once. It returns the fields up to an error, and no more of them than are needed
// to be over the limit.
func decodeBlock(block []byte, limit int) (fields []hpack.HeaderField, code http2.ErrCode) {
	size := 0
	dec := hpack.NewDecoder(DefaultTableSize, func(f hpack.HeaderField) {
		if size <= limit {
			fields = append(fields, f)
			size += int(f.Size())
		}
	})
	dec.SetMaxStringLength(limit)
	_, err := dec.Write(block)
	if err == nil {
		err = dec.Close()
	}
	switch {
	case size > limit, errors.Is(err, hpack.ErrStringLength):
		return nil, http2.ErrCodeEnhanceYourCalm
	case err != nil:
		return nil, http2.ErrCodeCompression
	}
	return fields, http2.ErrCodeNo
}

// malformed reports whether the Framer makes a stream error of these fields (RFC 9113, Section 8.1.1).
func malformed(fields []hpack.HeaderField) bool {
	seen := map[string]bool{}
	var regular bool
	for _, f := range fields {
		if !httpguts.ValidHeaderFieldValue(f.Value) {
			return true
		}
		if !strings.HasPrefix(f.Name, ":") {
			regular = true
			if !httpguts.ValidHeaderFieldName(f.Name) || strings.ToLower(f.Name) != f.Name {
				return true
			}
			continue
		}
		switch f.Name {
		case ":method", ":path", ":scheme", ":authority", ":protocol", ":status":
		default:
			return true
		}
		if regular || seen[f.Name] {
			return true
		}
		seen[f.Name] = true
	}
	return seen[":status"] && len(seen) > 1
}

// exception explains why a Parser refuses a frame that the Framer accepts, or refuses it with another code.
type exception struct {
	name  string
	holds func(data []byte, hs []header, i int, code http2.ErrCode, framer framerResult) bool
}

var exceptions = []exception{
	{"the first frame is left to the Framer's caller (RFC 9113, Section 3.4)", func(_ []byte, hs []header, i int, code http2.ErrCode, _ framerResult) bool {
		h := hs[i]
		return i == 0 && code == http2.ErrCodeProtocol &&
			(h.Type != http2.FrameSettings || h.Flags.Has(http2.FlagSettingsAck))
	}},
	{"the state of streams is left to the Framer's caller (RFC 9113, Sections 5.1 and 8.4)", func(_ []byte, hs []header, i int, code http2.ErrCode, _ framerResult) bool {
		switch hs[i].Type {
		case http2.FrameData, http2.FrameRSTStream, http2.FramePushPromise:
			return code == http2.ErrCodeProtocol
		case http2.FrameWindowUpdate:
			return code == http2.ErrCodeProtocol && hs[i].StreamID != 0
		}
		return false
	}},
	{"streams that depend on themselves are left to the Framer's caller (RFC 7540, Section 5.3.1)", func(data []byte, hs []header, i int, code http2.ErrCode, _ framerResult) bool {
		h := hs[i]
		return h.Type == http2.FramePriority && h.Length == 5 && code == http2.ErrCodeProtocol &&
			binary.BigEndian.Uint32(data[h.offset+FrameHeaderLen:])&(1<<31-1) == h.StreamID
	}},
	{"stream identifiers are left to the Framer's caller (RFC 9113, Section 5.1.1)", func(_ []byte, hs []header, i int, code http2.ErrCode, _ framerResult) bool {
		return hs[i].Type == http2.FrameHeaders && hs[i].StreamID%2 == 0 && code == http2.ErrCodeProtocol
	}},
	{"most settings are left to the Framer's caller, who meets the first bad one first", func(data []byte, hs []header, i int, code http2.ErrCode, _ framerResult) bool {
		if hs[i].Type != http2.FrameSettings {
			return false
		}
		for p := data[hs[i].offset+FrameHeaderLen : hs[i].end()]; len(p) >= SettingLen; p = p[SettingLen:] {
			s := http2.Setting{ID: http2.SettingID(binary.BigEndian.Uint16(p)), Val: binary.BigEndian.Uint32(p[2:])}
			if err := s.Valid(); err != nil {
				return err == http2.ConnectionError(code)
			}
			// Valid does not know this one (RFC 9218, Section 2.1).
			if s.ID == http2.SettingNoRFC7540Priorities && s.Val > 1 {
				return code == http2.ErrCodeProtocol
			}
		}
		return false
	}},
	{"the window is left to the Framer's caller (RFC 9113, Section 6.9.1)", func(data []byte, hs []header, i int, code http2.ErrCode, _ framerResult) bool {
		window := int64(65535)
		for _, h := range hs[:i+1] {
			if h.Type == http2.FrameWindowUpdate {
				window += int64(binary.BigEndian.Uint32(data[h.offset+FrameHeaderLen:]) & (1<<31 - 1))
			}
		}
		return hs[i].Type == http2.FrameWindowUpdate && window > 1<<31-1 && code == http2.ErrCodeFlowControl
	}},
	{"the Framer makes a stream error of too much padding (RFC 9113, Section 6.2)", func(_ []byte, hs []header, i int, code http2.ErrCode, framer framerResult) bool {
		return hs[i].Type == http2.FrameHeaders && hs[i].Flags.Has(http2.FlagHeadersPadded) && code == http2.ErrCodeProtocol &&
			framer.stream && framer.code == http2.ErrCodeProtocol && framer.frame == i
	}},
	{"a frame with a wrong stream and a wrong length breaks two rules", func(_ []byte, hs []header, i int, code http2.ErrCode, framer framerResult) bool {
		h := hs[i]
		return (h.Type == http2.FrameSettings || h.Type == http2.FramePing) && h.StreamID != 0 &&
			code == http2.ErrCodeProtocol && framer.code == http2.ErrCodeFrameSize && framer.frame == i
	}},
	{"an oversized frame in the wrong place breaks two rules", func(_ []byte, hs []header, i int, code http2.ErrCode, framer framerResult) bool {
		return hs[i].Length > DefaultMaxFrameSize && code == http2.ErrCodeProtocol && framer.code == http2.ErrCodeFrameSize && framer.frame == i
	}},
}

// refusesRest reports whether the Framer refused a header block of which there is more to come for us: it does so when
// a block goes on after a malformed field.
func refusesRest(t *testing.T, data []byte, hs []header, framer framerResult) bool {
	if framer.frame < 0 || framer.stream || framer.headers != nil ||
		framer.code != http2.ErrCodeProtocol || !inBlock(hs, framer.frame) {
		return false
	}
	var fields []hpack.HeaderField
	dec := hpack.NewDecoder(DefaultTableSize, func(f hpack.HeaderField) { fields = append(fields, f) })
	for _, fragment := range blockOf(t, data, hs, framer.frame-1).fragments {
		dec.Write(fragment)
	}
	return malformed(fields)
}

// silenced reports whether the Framer may miss an error in a header block: after a malformed field it decodes no more
// strings.
func silenced(b block) bool {
	var fields []hpack.HeaderField
	dec := hpack.NewDecoder(DefaultTableSize, func(f hpack.HeaderField) { fields = append(fields, f) })
	dec.Write(slices.Concat(b.fragments...))
	return malformed(fields)
}

// compareWithFramer checks the verdict of p on data against http2.Framer.
func compareWithFramer(t *testing.T, p *Parser, data []byte) {
	hs := headersOf(data)
	last := p.frames - 1
	if p.state == Error && hs[last].end() > len(data) {
		// A fault is reported without the rest of the frame, which the Framer waits for.
		data = append(slices.Clone(data), make([]byte, hs[last].end()-len(data))...)
	}
	framer := readFramer(t, data, hs)

	if p.state == Incomplete {
		if framer.frame >= 0 && !refusesRest(t, data, hs, framer) {
			t.Fatalf("incomplete, but Framer settles it: %+v", framer)
		}
		return
	}

	limit := p.maxHeaderListSize()
	maxFrames := p.MaxFrames
	if maxFrames == 0 {
		maxFrames = DefaultMaxFrames
	}

	if p.state == Complete {
		b := blockOf(t, data, hs, last)
		fields, code := decodeBlock(slices.Concat(b.fragments...), limit)
		if code != http2.ErrCodeNo {
			t.Fatalf("complete, but hpack says %v", code)
		}
		if diff := cmp.Diff(fields, p.Fields(), cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("hpack (-) and Parser (+) differ:\n%s", diff)
		}
		h := hs[b.first]
		if p.StreamID() != h.StreamID || p.EndStream() != h.Flags.Has(endStream) || p.frames > maxFrames {
			t.Fatalf("stream %d, END_STREAM %v, %d frames after %v", p.StreamID(), p.EndStream(), p.frames, h)
		}
		switch {
		case framer.headers != nil:
			if framer.frame != last || framer.headers.StreamID != p.StreamID() || framer.headers.Truncated {
				t.Fatalf("complete with frame %d, but Framer: %+v", last, framer)
			}
			if diff := cmp.Diff(framer.headers.Fields, p.Fields(), cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("Framer (-) and Parser (+) differ:\n%s", diff)
			}
		case !malformed(fields):
			t.Fatalf("complete and well-formed, but Framer: %+v", framer)
		case framer.stream && framer.frame == last:
		case framer.code == http2.ErrCodeProtocol && refusesRest(t, data, hs, framer):
		default:
			t.Fatalf("complete with malformed fields, but Framer: %+v", framer)
		}
		return
	}

	code := p.Err().Code
	decoded := code == http2.ErrCodeCompression || p.TooLarge()
	switch {
	case decoded:
		b := blockOf(t, data, hs, last)
		if _, want := decodeBlock(slices.Concat(b.fragments...), limit); code != want {
			t.Fatalf("%v, but hpack says %v", p.Err(), want)
		}
		if code == http2.ErrCodeCompression && (framer.headers != nil || framer.stream && !silenced(b)) {
			t.Fatalf("%v, but Framer: %+v", p.Err(), framer)
		}
		return
	case code == http2.ErrCodeEnhanceYourCalm:
		if p.frames != maxFrames+1 {
			t.Fatalf("%v with frame %d of %d", p.Err(), p.frames, maxFrames)
		}
		return
	case framer.frame == last && framer.code == code && !framer.stream:
		return
	case framer.frame >= 0 && framer.frame < last:
		if !refusesRest(t, data, hs, framer) {
			t.Fatalf("%v with frame %d, but Framer: %+v", p.Err(), last, framer)
		}
		return
	}
	for _, e := range exceptions {
		if e.holds(data, hs, last, code, framer) {
			return
		}
	}
	t.Fatalf("%v with frame %d %v, but Framer: %+v", p.Err(), last, hs[last], framer)
}

// Sequences of frames that are right but for a few random changes reach deeper than a fuzzer does in the same time.
func TestParserAgainstFramer(t *testing.T) {
	t.Parallel()
	rnd := rand.New(rand.NewPCG(1, 2))
	pick := func(vs ...uint32) uint32 { return vs[rnd.IntN(len(vs))] }
	fields := [][]byte{
		{0x82}, {0x86}, {0x84}, {0x88}, {0x80}, {0xbe}, {0x20}, {0x40, 1, 'a', 1, 'b'}, {0x00, 1, 'A', 0},
		{0x40, 1, 'x', 2, '\r', '\n'}, encode(hpack.HeaderField{Name: "long", Value: strings.Repeat("v", 300)}),
	}
	fragment := func() []byte {
		var b []byte
		for range rnd.IntN(4) {
			b = append(b, fields[rnd.IntN(min(len(fields), 3+rnd.IntN(20)))]...)
		}
		return b[:len(b)-min(len(b), int(pick(0, 0, 0, 0, 0, 1)))]
	}
	headers := func() []byte {
		flags := http2.Flags(pick(0, 0x4, 0x5, 0x24, 0x8, 0x2c, 0x20))
		var payload []byte
		if flags.Has(padded) {
			payload = append(payload, byte(pick(0, 3, 3, 4)))
		}
		if flags.Has(priority) {
			payload = append(payload, 0, 0, 0, 0, 9)
		}
		payload = append(payload, fragment()...)
		if flags.Has(padded) {
			payload = append(payload, 0, 0, 0)
		}
		b := frame(http2.FrameHeaders, flags, pick(1, 1, 1, 3, 3, 3, 0, 2), payload...)
		for !flags.Has(endHeaders) && rnd.IntN(8) > 0 {
			flags = http2.Flags(pick(0, 0x4))
			b = append(b, frame(http2.FrameContinuation, flags, binary.BigEndian.Uint32(b[5:])+pick(0, 0, 0, 0, 0, 0, 0, 0, 2), fragment()...)...)
		}
		return b
	}
	settings := func() []byte {
		var ss []http2.Setting
		for range rnd.IntN(4) {
			ss = append(ss, http2.Setting{
				ID:  http2.SettingID(rnd.IntN(11)),
				Val: pick(0, 1, 1, 1<<14, 1<<14, 1<<24-1, 2, 1<<31-1, 1<<31),
			})
		}
		return AppendSettings(nil, ss...)
	}
	others := []func() []byte{
		settings,
		func() []byte { return frame(http2.FrameSettings, http2.FlagSettingsAck, 0) },
		func() []byte { return windowUpdate(0, pick(1, 1<<16, 1<<29, 1<<30, 1<<31|1)) },
		func() []byte { return frame(http2.FramePriority, 0, 3, make([]byte, pick(5, 5, 4))...) },
		func() []byte { return frame(http2.FramePing, http2.Flags(pick(0, 1)), 0, make([]byte, 8)...) },
		func() []byte { return AppendGoAway(nil, 0, http2.ErrCodeNo, "bye") },
		func() []byte { return frame(http2.FramePriorityUpdate, 0, pick(0, 1), make([]byte, rnd.IntN(6))...) },
		func() []byte { return frame(0xfa, 0, 1, make([]byte, rnd.IntN(6))...) },
		func() []byte {
			return frame(http2.FrameType(rnd.IntN(18)), 0, pick(0, 1), make([]byte, rnd.IntN(9))...)
		},
	}

	verdicts := map[string]int{}
	for range 5_000 {
		data := join(preface, settings())
		if rnd.IntN(3) > 0 {
			data = opening
		}
		for range rnd.IntN(5) {
			data = join(data, others[rnd.IntN(len(others))]())
		}
		data = join(data, headers(), get)
		if rnd.IntN(3) == 0 {
			data[len(Preface)+rnd.IntN(len(data)-len(Preface))] ^= byte(pick(1, 2, 4, 8, 0x20, 0x80))
		}
		data = data[:len(data)-int(pick(0, 0, uint32(rnd.IntN(len(get)+4))))]

		p := Parser{MaxFrames: int(pick(0, 0, 4)), MaxHeaderListSize: int(pick(0, 0, 100, 400))}
		p.Parse(data)
		compareWithFramer(t, &p, data)
		if t.Failed() {
			t.Fatalf("%x", data)
		}
		verdict := p.state.String()
		if p.Err() != nil {
			verdict = p.Err().Code.String()
		}
		verdicts[verdict]++
	}
	for _, verdict := range []string{
		"Complete", "Incomplete", "PROTOCOL_ERROR", "FRAME_SIZE_ERROR", "FLOW_CONTROL_ERROR", "COMPRESSION_ERROR", "ENHANCE_YOUR_CALM",
	} {
		if verdicts[verdict] < 20 {
			t.Errorf("%s came of %d sequences only", verdict, verdicts[verdict])
		}
	}
}

func FuzzParse(f *testing.F) {
	add := func(data []byte) {
		f.Add(data, []byte{1}, uint8(0), uint16(0))
		f.Add(data, []byte{24, 9, 3}, uint8(5), uint16(150))
	}
	cs := captures(f)
	for _, c := range cs {
		add(c.first)
		add(c.all)
	}
	for _, c := range cs {
		if !bytes.HasPrefix(c.all, preface) {
			continue
		}
		for _, d := range cs {
			if tail, ok := bytes.CutPrefix(d.all, preface); ok {
				add(join(c.first, tail))
				add(join(opening, tail[9:], c.first))
			}
		}
	}
	for _, frame := range [][]byte{
		frame(http2.FramePing, 0, 0, make([]byte, 8)...),
		AppendGoAway(nil, 1, http2.ErrCodeNo, "bye"),
		setting(http2.SettingNoRFC7540Priorities, 1),
		windowUpdate(0, 1<<30),
		windowUpdate(1, 1),
		frame(http2.FrameData, 0, 1, 1),
		frame(http2.FrameRSTStream, 0, 1, 0, 0, 0, 0),
		frame(http2.FramePushPromise, 0, 1, 0, 0, 0, 2),
		frame(http2.FramePriorityUpdate, 0, 0, 0, 0, 0, 1),
		frame(http2.FrameHeaders, padded|priority, 1, 1, 0, 0, 0, 0, 0, 0x82, 0),
		frame(http2.FrameContinuation, endHeaders, 1, 0x40, 1, 'a', 1, 'b', 0xbe),
		frame(0xfa, 0, 1, 1, 2, 3),
	} {
		add(join(opening, frame, get))
		add(join(opening, frame, frame, get))
		add(join(opening, get[:4], []byte{0}, get[5:], frame, frame))
	}

	f.Fuzz(func(t *testing.T, data, splits []byte, maxFrames uint8, maxHeaderListSize uint16) {
		p := Parser{MaxFrames: int(maxFrames), MaxHeaderListSize: int(maxHeaderListSize)}
		p.Parse(data)
		want := resultOf(&p)

		// The same in chunks, each time in another buffer, of which nothing is left after the call.
		chunked := Parser{MaxFrames: p.MaxFrames, MaxHeaderListSize: p.MaxHeaderListSize}
		for n, i := 0, 0; n < len(data); i++ {
			step := 1 + len(data)/64
			if len(splits) > 0 {
				step = max(step, int(splits[i%len(splits)]))
			}
			n = min(n+step, len(data))
			before := chunked.state
			buf := slices.Clone(data[:n])
			if s := chunked.Parse(buf); before != Incomplete && s != before {
				t.Fatalf("%v became %v", before, s)
			}
			clear(buf)
		}
		if diff := cmp.Diff(want, resultOf(&chunked)); diff != "" {
			t.Fatalf("at once (-) and in chunks (+) differ:\n%s", diff)
		}
		chunked.Reset()
		chunked.Parse(data)
		if diff := cmp.Diff(want, resultOf(&chunked)); diff != "" {
			t.Fatalf("first use (-) and second (+) differ:\n%s", diff)
		}

		n := min(len(data), len(Preface))
		if http := string(data[:n]) == Preface[:n]; http == (p.state == NotHTTP2) {
			t.Fatalf("%v for %q", p.state, data[:n])
		}
		if p.PrefaceSeen() {
			compareWithFramer(t, &p, data)
		}
	})
}

func FuzzHeaderBlock(f *testing.F) {
	add := func(block []byte) {
		f.Add(block, []byte{}, uint8(4), []byte{}, uint8(0), uint32(1), uint16(0))
		f.Add(block, []byte{0, 1, 3, 5}, uint8(0x2d), []byte{0, 0, 0, 3, 16}, uint8(2), uint32(7), uint16(200))
	}
	add(getBlock)
	add([]byte{0x3f, 0xe1, 0x1f, 0x40, 1, 'a', 1, 'b', 0xbe, 0xbe})
	add(encode(hpack.HeaderField{Name: "a", Value: strings.Repeat("v", 3000), Sensitive: true}))
	add(append(encode(hpack.HeaderField{Name: "a", Value: strings.Repeat("v", 4000)}), bytes.Repeat([]byte{0xbe}, 100)...))
	for _, c := range captures(f) {
		var p Parser
		if p.Parse(c.all) == Complete {
			hs := headersOf(c.all)
			for _, fragment := range blockOf(f, c.all, hs, p.frames-1).fragments {
				add(fragment)
			}
		}
	}

	f.Fuzz(func(t *testing.T, block, cuts []byte, flags uint8, priorityFields []byte, padLen uint8, streamID uint32, limit uint16) {
		streamID = streamID&(1<<31-1) | 1
		// Room for the padding, and for the block with as many frames as there are.
		block = block[:min(len(block), 8*8192)]
		cuts = cuts[:min(len(cuts), DefaultMaxFrames-12)]

		var fragments [][]byte
		rest := block
		for _, c := range cuts {
			n := min(len(rest), int(c))
			fragments = append(fragments, rest[:n])
			rest = rest[n:]
		}
		fragments = slices.AppendSeq(fragments, slices.Chunk(rest, 8192))
		if len(fragments) == 0 {
			fragments = [][]byte{nil}
		}

		var b bytes.Buffer
		b.WriteString(Preface)
		framer := http2.NewFramer(&b, nil)
		framer.WriteSettings()
		for i, fragment := range fragments {
			// Flags other than END_HEADERS mean nothing in CONTINUATION.
			flags := http2.Flags(flags) &^ endHeaders
			if i == len(fragments)-1 {
				flags |= endHeaders
			}
			if i > 0 {
				framer.WriteRawFrame(http2.FrameContinuation, flags, streamID, fragment)
				continue
			}
			var payload []byte
			if flags.Has(padded) {
				payload = append(payload, padLen)
			}
			if flags.Has(priority) {
				payload = append(payload, append(slices.Clone(priorityFields), make([]byte, 5)...)[:5]...)
			}
			payload = append(payload, fragment...)
			if flags.Has(padded) {
				payload = append(payload, make([]byte, padLen)...)
			}
			framer.WriteRawFrame(http2.FrameHeaders, flags, streamID, payload)
		}
		data := b.Bytes()

		p := Parser{MaxFrames: 1 + len(fragments), MaxHeaderListSize: int(limit)}
		early := p.Parse(data[:len(data)-1])
		p.Parse(data)
		want := result{State: Complete, Preface: true, StreamID: streamID, EndStream: http2.Flags(flags).Has(endStream)}
		fields, code := decodeBlock(block, p.maxHeaderListSize())
		if code != http2.ErrCodeNo {
			want = result{State: Error, Preface: true, Err: &ConnError{Code: code}}
		}
		if early == Complete || early == Error && code == http2.ErrCodeNo {
			t.Fatalf("%v before the end of the block: %v", early, p.Err())
		}
		want.Fields = fields
		opts := cmp.Options{cmpopts.EquateEmpty(), cmpopts.IgnoreFields(ConnError{}, "Reason")}
		if diff := cmp.Diff(want, resultOf(&p), opts); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}

		if limit == 0 && len(fields) > 0 {
			full, err := hpack.NewDecoder(DefaultTableSize, func(hpack.HeaderField) {}).DecodeFull(block)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(full, p.Fields()); diff != "" {
				t.Fatalf("DecodeFull (-) and Parser (+) differ:\n%s", diff)
			}
		}

		p.Reset()
		p.MaxFrames--
		if p.MaxFrames > 0 && code == http2.ErrCodeNo && (p.Parse(data) != Error || p.Err().Code != http2.ErrCodeEnhanceYourCalm) {
			t.Fatalf("%d frames, limit %d: %+v", len(fragments)+1, p.MaxFrames, resultOf(&p))
		}
	})
}

func FuzzAppend(f *testing.F) {
	f.Add([]byte{}, uint32(0), uint32(0), "")
	f.Add([]byte{0, 3, 0, 0, 0, 100, 0, 4, 0, 1, 0, 0}, uint32(1), uint32(11), "too many frames")
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, uint32(1<<32-1), uint32(1<<32-1), strings.Repeat("x", 16385))
	f.Fuzz(func(t *testing.T, raw []byte, lastStreamID, code uint32, debug string) {
		var settings []http2.Setting
		for raw := raw[:min(len(raw), DefaultMaxFrameSize)]; len(raw) >= SettingLen; raw = raw[SettingLen:] {
			settings = append(settings, http2.Setting{
				ID:  http2.SettingID(binary.BigEndian.Uint16(raw)),
				Val: binary.BigEndian.Uint32(raw[2:]),
			})
		}
		got := AppendSettings([]byte("dst"), settings...)
		got = AppendGoAway(got, lastStreamID, http2.ErrCode(code), debug)

		debug = debug[:min(len(debug), 16384-8)]
		want := bytes.NewBufferString("dst")
		framer := http2.NewFramer(want, nil)
		framer.WriteSettings(settings...)
		framer.WriteGoAway(lastStreamID, http2.ErrCode(code), []byte(debug))
		if !bytes.Equal(got, want.Bytes()) {
			t.Fatalf("got %x, Framer writes %x", got, want)
		}

		framer = http2.NewFramer(nil, bytes.NewReader(got[3:]))
		framer.SetMaxReadFrameSize(DefaultMaxFrameSize)
		frame, err := framer.ReadFrame()
		if err != nil {
			if i := slices.IndexFunc(settings, func(s http2.Setting) bool { return s.Valid() != nil }); i < 0 {
				t.Fatalf("SETTINGS: %v", err)
			}
			return
		}
		sf := frame.(*http2.SettingsFrame)
		var read []http2.Setting
		sf.ForeachSetting(func(s http2.Setting) error {
			read = append(read, s)
			return nil
		})
		if !slices.Equal(settings, read) || sf.IsAck() {
			t.Errorf("wrote %v, read %v", settings, read)
		}
		frame, err = framer.ReadFrame()
		if err != nil {
			t.Fatalf("GOAWAY: %v", err)
		}
		ga := frame.(*http2.GoAwayFrame)
		if ga.LastStreamID != lastStreamID&(1<<31-1) || ga.ErrCode != http2.ErrCode(code) || string(ga.DebugData()) != debug {
			t.Errorf("read %v with debug data %q", ga, ga.DebugData())
		}
	})
}
