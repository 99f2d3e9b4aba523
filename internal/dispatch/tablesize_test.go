package dispatch

import (
	"bytes"
	"net"
	"sync"
	"testing"
	"testing/synctest"

	"golang.org/x/net/http2"

	"github.com/oneport-go/oneport/internal/h2"
)

// taped is a connection that keeps what is read from it.
type taped struct {
	net.Conn
	mu   sync.Mutex
	tape []byte
}

func (c *taped) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tape = append(c.tape, p[:n]...)
	return n, err
}

// blocks returns the header blocks that were read, which must be in a frame each.
func (c *taped) blocks() (blocks [][]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for b := c.tape; len(b) > 0; {
		h := h2.ParseFrameHeader(b)
		if h.Type == http2.FrameHeaders {
			blocks = append(blocks, b[h2.FrameHeaderLen:h2.FrameLen(h)])
		}
		b = b[h2.FrameLen(h):]
	}
	return blocks
}

// TestTableSizeBeforeRequest has a client set SETTINGS_HEADER_TABLE_SIZE several times before its first request, when
// there is no server. If a value was lower than the one before, the first header block has to say so (RFC 7541, Section
// 4.2): decoders that obey it take a block without that for an error.
func TestTableSizeBeforeRequest(t *testing.T) {
	t.Parallel()
	const lowest, back = "\x20", "\x3f\xe1\x1f" // 0, 4096
	for _, tt := range []struct {
		name  string
		sizes []uint32
		want  string // the first block begins with
	}{
		{"none", nil, ""},
		{"lowered and raised", []uint32{0, 4096}, lowest + back},
		{"lowered twice", []uint32{100, 50}, lowest + "\x3f\x13"},
		{"raised", []uint32{5000, 10_000}, lowest + back}, // which is right, and not needed
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				d := newDispatcher(1)
				near, far := net.Pipe()
				tape := &taped{Conn: near}
				o := d.Handle(far)
				client := newEnd(t, tape, false)
				client.Write([]byte(http2.ClientPreface))
				client.fr.WriteSettings()
				synctest.Wait()
				for _, size := range tt.sizes {
					client.fr.WriteSettings(http2.Setting{ID: http2.SettingHeaderTableSize, Val: size})
					synctest.Wait()
				}
				client.fr.WriteSettingsAck()
				client.request(1, "0", true)
				conn, err := d.all()[0].Accept()
				if err != nil {
					t.Fatal(err)
				}
				server := newEnd(t, conn, true)
				server.fr.WriteSettings()
				server.fr.WriteSettingsAck()
				server.headers(1, true, ":status", "200", "x", "y")
				synctest.Wait()
				blocks := tape.blocks()
				if len(blocks) != 1 {
					t.Fatalf("the client has read %d header blocks", len(blocks))
				}
				if tt.want == "" && blocks[0][0]&0xe0 == 0x20 || !bytes.HasPrefix(blocks[0], []byte(tt.want)) {
					t.Errorf("the block is %x, which should begin with %x", blocks[0], tt.want)
				}
				server.close()
				client.close()
				<-o.done
			})
		})
	}
}
