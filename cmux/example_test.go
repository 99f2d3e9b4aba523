package cmux_test

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"

	"github.com/soheilhy/cmux"
)

func Example() {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	m := cmux.New(l)
	httpL := m.Match(cmux.HTTP1Fast())
	otherL := m.Match(cmux.Any())
	go http.Serve(httpL, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "hello over HTTP")
	}))
	go func() {
		for {
			c, err := otherL.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, "hello over TCP")
			c.Close()
		}
	}()
	done := make(chan error)
	go func() { done <- m.Serve() }()

	resp, err := http.Get("http://" + l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	fmt.Printf("%s\n", body)

	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		log.Fatal(err)
	}
	fmt.Fprint(c, "ping\n")
	answer, _ := io.ReadAll(c)
	fmt.Printf("%s\n", answer)

	l.Close()
	<-done
	// Output:
	// hello over HTTP
	// hello over TCP
}
