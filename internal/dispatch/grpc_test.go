package dispatch

import (
	"context"
	"net"
	"testing"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

// To a client of grpc-go, a call whose server is stopped is UNAVAILABLE, as it is bare.
func TestStoppedCallIsUnavailable(t *testing.T) {
	for _, mode := range []string{"bare", "passing", "splitting"} {
		for _, answered := range []bool{false, true} {
			name := mode + "/no answer"
			if answered {
				name = mode + "/answered"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				l, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				defer l.Close()
				begun := make(chan struct{}, 1)
				s := grpc.NewServer(grpc.ForceServerCodec(rawCodec{}), grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
					if answered {
						s.SendMsg(new([]byte("answer")))
					}
					begun <- struct{}{}
					<-s.Context().Done()
					return s.Context().Err()
				}))
				served := make(chan struct{})
				defer func() { <-served }()
				if mode == "bare" {
					go func() { s.Serve(l); close(served) }()
				} else {
					d := newDispatcher(1)
					d.Decide = func(net.Conn, []hpack.HeaderField) int { return 0 }
					d.AlwaysSplit = mode == "splitting"
					go func() { s.Serve(d.all()[0]); close(served) }()
					go func() {
						for {
							c, err := l.Accept()
							if err != nil {
								return
							}
							d.Handle(c)
						}
					}()
				}
				defer s.Stop()
				client, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
				if err != nil {
					t.Fatal(err)
				}
				defer client.Close()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				stream, err := client.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/s/Hang", grpc.ForceCodec(rawCodec{}))
				if err != nil {
					t.Fatal(err)
				}
				var m []byte
				if answered {
					if err := stream.RecvMsg(&m); err != nil || string(m) != "answer" {
						t.Fatalf("%q, %v", m, err)
					}
				}
				<-begun
				s.Stop()
				if err := stream.RecvMsg(&m); status.Code(err) != codes.Unavailable {
					t.Errorf("%v", err)
				}
			})
		}
	}
}
