package oneport_test

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/oneport-go/oneport"
)

// All clients of this port speak first. TCP keep-alive drops clients that have not answered for 40 seconds.
func ExampleListenConfig() {
	lc := oneport.ListenConfig{
		ListenConfig: net.ListenConfig{
			KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: 10 * time.Second, Interval: 10 * time.Second, Count: 3},
		},
		DeferAccept: 10 * time.Second,
	}
	l, err := lc.Listen(context.Background(), "tcp", "localhost:0")
	if err != nil {
		log.Fatal(err)
	}
	mux := oneport.New(l)
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello") })}
	go web.Serve(mux.Match(oneport.HTTP1()))
	go mux.Serve()

	res, err := http.Get("http://" + l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	res.Body.Close()
	fmt.Println(res.Status)

	http.DefaultClient.CloseIdleConnections()
	mux.Shutdown(context.Background())
	web.Shutdown(context.Background())
	// Output: 200 OK
}
