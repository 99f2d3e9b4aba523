// Package load has the clients that put a server under load, and the scenarios that they run.
//
// The clients are written for this purpose: they are cheap, so that they take little processor time from the server,
// and strict, so that any answer but the expected one is an error.
package load

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strconv"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/protobuf/proto"

	"github.com/oneport-go/oneport/benchmarks/internal/contender"
)

// A request is one of HTTP.
type request struct {
	method string
	path   string
	grpc   bool

	// The body is chunk, repeat times over.
	chunk  []byte
	repeat int

	// want is the length of the body of the answer; anySize takes any.
	want int
}

const anySize = -1

func (r *request) size() int { return len(r.chunk) * r.repeat }

// fields is the header list of the request (RFC 9113, Section 8.3.1), as grpc-go has it for a call.
func (r *request) fields(scheme, authority string) []hpack.HeaderField {
	list := []hpack.HeaderField{
		{Name: ":method", Value: r.method},
		{Name: ":scheme", Value: scheme},
		{Name: ":path", Value: r.path},
		{Name: ":authority", Value: authority},
	}
	if r.grpc {
		list = append(list,
			hpack.HeaderField{Name: "content-type", Value: "application/grpc"},
			hpack.HeaderField{Name: "user-agent", Value: userAgent},
			hpack.HeaderField{Name: "te", Value: "trailers"})
		return list
	}
	list = append(list, hpack.HeaderField{Name: "user-agent", Value: userAgent})
	if r.size() > 0 {
		list = append(list, hpack.HeaderField{Name: "content-length", Value: strconv.Itoa(r.size())})
	}
	return list
}

const userAgent = "oneport-benchmarks"

// http1 is the head of the request (RFC 9112, Section 3).
func (r *request) http1(authority string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: %s\r\n", r.method, r.path, authority, userAgent)
	if r.size() > 0 {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", r.size())
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

// The methods of the harness's gRPC services.
const (
	// HealthCheck is the call that every gRPC server with the standard health service answers.
	HealthCheck = "/grpc.health.v1.Health/Check"

	unaryCall           = "/grpc.testing.TestService/UnaryCall"
	streamingInputCall  = "/grpc.testing.TestService/StreamingInputCall"
	streamingOutputCall = "/grpc.testing.TestService/StreamingOutputCall"
)

// grpcPrefixLen is the length of what is in front of each message: a flag and a length.
const grpcPrefixLen = 5

// message is a gRPC message with its prefix.
func message(m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err) // of messages that are made here
	}
	head := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(b)))
	return append(head, b...)
}

// get is a GET of a path.
func get(path string, want int) *request { return &request{method: "GET", path: path, want: want} }

// call is a unary call with an empty message.
func call(method string, want int) *request {
	return &request{method: "POST", path: method, grpc: true, chunk: make([]byte, grpcPrefixLen), repeat: 1, want: want}
}

// serving is the length of the answer to a health check: the field with the status takes two bytes.
const serving = grpcPrefixLen + 2

// bodySize is the size of a body, and of the pieces of a large one.
const bodySize = 64 << 10

// largePieces is how many pieces of bodySize are in 100 MB (104,857,600 bytes).
const largePieces = 1600

// echo sends a body and gets it back.
func echo() *request {
	return &request{method: "POST", path: contender.PathEcho, chunk: make([]byte, bodySize), repeat: 1, want: bodySize}
}

// upload and download are the two halves of a large body's way there and back. It has so many pieces.
func upload(pieces int) *request {
	size := bodySize * pieces
	return &request{
		method: "POST", path: contender.PathUpload,
		chunk: make([]byte, bodySize), repeat: pieces, want: len(strconv.Itoa(size)),
	}
}

func download(pieces int) *request {
	size := bodySize * pieces
	return get(contender.PathBytes+"?n="+strconv.Itoa(size), size)
}

func payload() *grpc_testing.Payload { return &grpc_testing.Payload{Body: make([]byte, bodySize)} }

func grpcEcho() *request {
	return &request{
		method: "POST", path: unaryCall, grpc: true,
		chunk: message(&grpc_testing.SimpleRequest{Payload: payload()}), repeat: 1,
		want: len(message(&grpc_testing.SimpleResponse{Payload: payload()})),
	}
}

func grpcUpload(pieces int) *request {
	return &request{
		method: "POST", path: streamingInputCall, grpc: true,
		chunk: message(&grpc_testing.StreamingInputCallRequest{Payload: payload()}), repeat: pieces,
		want: len(message(&grpc_testing.StreamingInputCallResponse{AggregatedPayloadSize: int32(bodySize * pieces)})),
	}
}

func grpcDownload(pieces int) *request {
	ask := &grpc_testing.StreamingOutputCallRequest{}
	for range pieces {
		ask.ResponseParameters = append(ask.ResponseParameters, &grpc_testing.ResponseParameters{Size: bodySize})
	}
	return &request{
		method: "POST", path: streamingOutputCall, grpc: true,
		chunk: message(ask), repeat: 1,
		want: pieces * len(message(&grpc_testing.StreamingOutputCallResponse{Payload: payload()})),
	}
}
