package main

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
)

// An exchange is what is sent in both directions: messages of these sizes each way, whose bytes follow from the seed.
// REST has one each way.
type exchange struct {
	seed     uint64
	up, down []int
}

// size returns a size as they come: nothing, a few bytes, around the boundaries of frames, packets and windows, more.
func size(r *rand.Rand) int {
	switch r.IntN(10) {
	case 0:
		return 0
	case 1, 2, 3:
		return r.IntN(100)
	case 4, 5:
		return r.IntN(5000)
	case 6:
		return 16<<10 - 20 + r.IntN(40)
	case 7:
		return 64<<10 - 20 + r.IntN(40)
	case 8:
		return r.IntN(40_000)
	}
	return r.IntN(300_000)
}

func newExchange(r *rand.Rand, messages int) exchange {
	e := exchange{seed: r.Uint64()}
	for range messages {
		e.up, e.down = append(e.up, size(r)), append(e.down, size(r))
	}
	return e
}

func (e exchange) bytes() (up, down int64) {
	for i := range e.up {
		up += int64(e.up[i])
		down += int64(e.down[i])
	}
	return up, down
}

// A direction tells the contents of the two apart.
type direction uint64

const (
	upwards   direction = 1
	downwards direction = 2
)

// A stream has the bytes of a message, one after the other.
type stream struct {
	src  *rand.ChaCha8
	left int
}

// message returns the bytes of a message.
func (e exchange) message(d direction, number, size int) *stream {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], e.seed)
	binary.LittleEndian.PutUint64(seed[8:], uint64(d))
	binary.LittleEndian.PutUint64(seed[16:], uint64(number))
	return &stream{rand.NewChaCha8(seed), size}
}

func (s *stream) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	n := min(len(p), s.left)
	s.src.Read(p[:n])
	s.left -= n
	return n, nil
}

func (s *stream) all() []byte {
	b := make([]byte, s.left)
	io.ReadFull(s, b)
	return b
}

// check reads got to its end and reports the first byte that is not the stream's.
func (s *stream) check(got io.Reader) error {
	b, want := make([]byte, 32<<10), make([]byte, 32<<10)
	for at := 0; ; {
		n, err := got.Read(b)
		m, _ := io.ReadFull(s, want[:n])
		for i := range m {
			if b[i] != want[i] {
				return fmt.Errorf("byte %d is %#x, want %#x", at+i, b[i], want[i])
			}
		}
		if m < n {
			return fmt.Errorf("there are bytes behind the %d that were sent", at+m)
		}
		at += n
		switch {
		case err == io.EOF && s.left > 0:
			return fmt.Errorf("the end comes after %d bytes, %d are missing", at, s.left)
		case err == io.EOF:
			return nil
		case err != nil:
			return fmt.Errorf("after %d bytes: %w", at, err)
		}
	}
}
