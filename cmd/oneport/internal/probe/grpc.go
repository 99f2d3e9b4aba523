package probe

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/oneport-go/oneport/cmd/oneport/internal/wire"
)

// The messages of the health check and of reflection are so small that they are written and read field by field. With
// grpc-go and its generated code the program would be three times as large, and could not show what is on the wire.

// Status codes of gRPC.
const (
	grpcOK            = 0
	grpcUnimplemented = 12
	noGRPCStatus      = -1
)

var grpcCodes = []string{
	"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED",
	"RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE",
	"DATA_LOSS", "UNAUTHENTICATED",
}

// GRPCCode names a status code.
func GRPCCode(n int) string {
	if n >= 0 && n < len(grpcCodes) {
		return grpcCodes[n]
	}
	return "status " + strconv.Itoa(n)
}

const (
	healthMethod     = "/grpc.health.v1.Health/Check"
	reflectionMethod = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"
	noMethod         = "/oneport.probe.NoSuchService/NoSuchMethod"
)

// message puts a message behind the prefix that gRPC has for it.
func message(b []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(b))), b...)
}

// payload returns the first message of a body.
func payload(b []byte) ([]byte, bool) {
	if len(b) < 5 || b[0] != 0 {
		return nil, false
	}
	n := binary.BigEndian.Uint32(b[1:])
	if uint64(len(b)-5) < uint64(n) {
		return nil, false
	}
	return b[5 : 5+n], true
}

// healthRequest is a grpc.health.v1.HealthCheckRequest.
func healthRequest(service string) []byte {
	if service == "" {
		return message(nil)
	}
	return message(protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), service))
}

// listServices is a grpc.reflection.v1.ServerReflectionRequest with list_services.
var listServices = message(protowire.AppendString(protowire.AppendTag(nil, 7, protowire.BytesType), "*"))

// fields calls f for each field of a message of protocol buffers that is a number or bytes.
func fields(b []byte, f func(num protowire.Number, v uint64, bytes []byte)) {
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return
		}
		b = b[n:]
		switch typ {
		case protowire.VarintType:
			v, n := protowire.ConsumeVarint(b)
			if n < 0 {
				return
			}
			f(num, v, nil)
		case protowire.BytesType:
			v, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return
			}
			f(num, 0, v)
		}
		if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
			return
		}
		b = b[n:]
	}
}

// servingStatus reads a grpc.health.v1.HealthCheckResponse.
func servingStatus(b []byte) string {
	status := uint64(0)
	fields(b, func(num protowire.Number, v uint64, _ []byte) {
		if num == 1 {
			status = v
		}
	})
	names := []string{"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"}
	if status < uint64(len(names)) {
		return names[status]
	}
	return fmt.Sprintf("status %d", status)
}

// serviceNames reads the services of a grpc.reflection.v1.ServerReflectionResponse.
func serviceNames(b []byte) []string {
	var names []string
	fields(b, func(num protowire.Number, _ uint64, list []byte) {
		if num != 6 {
			return
		}
		fields(list, func(num protowire.Number, _ uint64, service []byte) {
			if num != 1 {
				return
			}
			fields(service, func(num protowire.Number, _ uint64, name []byte) {
				if num == 1 && len(names) < 50 {
					names = append(names, wire.Printable(string(name)))
				}
			})
		})
	})
	return names
}

func (a *attempt) call(path string) []hpack.HeaderField {
	return []hpack.HeaderField{
		{Name: ":method", Value: "POST"}, {Name: ":scheme", Value: a.scheme()},
		{Name: ":path", Value: path}, {Name: ":authority", Value: a.Host},
		{Name: "content-type", Value: "application/grpc"}, {Name: "user-agent", Value: userAgent}, {Name: "te", Value: "trailers"},
	}
}

// grpcFacts reads the answer to a call. It is nil if the answer is not one of gRPC.
func grpcFacts(path string, st *wire.Stream) *GRPC {
	status := st.Field("grpc-status")
	if status == "" && !strings.HasPrefix(st.Field("content-type"), "application/grpc") {
		return nil
	}
	g := &GRPC{Via: path, Status: noGRPCStatus}
	if n, err := strconv.Atoi(status); err == nil {
		g.Status = n
	}
	g.Message = st.Field("grpc-message")
	if text, err := url.PathUnescape(g.Message); err == nil {
		g.Message = text
	}
	g.Message = wire.Printable(g.Message)
	return g
}

// grpc makes the calls that reveal the most, as a gRPC client does: it waits for the server's SETTINGS.
func (a *attempt) grpc(c *wire.Conn) {
	s := a.session(c, bufio.NewReader(c))
	defer a.keep(c, s)
	if !a.await(c, s) {
		return
	}
	// A proxy may route by path, so the next method may reach a server that the first one does not.
	calls := []struct {
		path string
		body []byte
	}{
		{healthMethod, healthRequest(a.Service)},
		{reflectionMethod, listServices},
		{noMethod, message(nil)},
	}
	if a.Service != "" {
		calls[2].path = "/" + a.Service + "/NoSuchMethod"
	}
	for _, call := range calls {
		began := time.Now()
		st, ok := a.ask(c, s, call.body, a.call(call.path))
		if !ok {
			return
		}
		facts := grpcFacts(call.path, st)
		if facts == nil {
			if a.r.HTTP == nil {
				a.r.HTTP = streamFacts(st)
			}
			if !a.timeFor(began) {
				break
			}
			continue
		}
		if call.path == healthMethod && facts.Status == grpcOK {
			if b, ok := payload(st.Body); ok {
				facts.Health = servingStatus(b)
			}
		}
		a.r.GRPC, a.r.HTTP = facts, streamFacts(st)
		if call.path == healthMethod && a.timeFor(began) && !a.services(c, s) {
			return
		}
		break
	}
	a.judgeGRPC()
	a.depart(c, s)
}

// services asks for the names of the services by reflection, which is also a second call on the connection.
func (a *attempt) services(c *wire.Conn, s *wire.Session) bool {
	a.r.HTTP2.First = true
	st, ok := a.ask(c, s, listServices, a.call(reflectionMethod))
	if !ok {
		return false
	}
	a.r.HTTP2.Second = true
	if g := grpcFacts(reflectionMethod, st); g != nil && g.Status == grpcOK {
		if b, ok := payload(st.Body); ok {
			a.r.GRPC.Services = serviceNames(b)
		}
	}
	return true
}

// judgeGRPC sets the result from the answers to the calls.
func (a *attempt) judgeGRPC() {
	g := a.r.GRPC
	if g == nil {
		h := a.r.HTTP
		a.log.Note("an HTTP response without grpc-status: no gRPC server has answered")
		a.say(Refused, Declined, "%d %s, from an HTTP server", h.Status, strings.TrimSpace(h.ContentType))
		a.r.Came = strings.ReplaceAll(a.r.Came, " ,", ",")
		return
	}
	services := ""
	if n := len(g.Services); n == 1 {
		services = ", 1 service"
	} else if n > 1 {
		services = fmt.Sprintf(", %d services", n)
	}
	switch {
	case g.Health == "SERVING":
		a.say(Works, OK, "SERVING%s", services)
	case g.Health != "":
		a.say(WorksBut, OK, "%s%s", g.Health, services)
	case g.Status == grpcUnimplemented:
		what := "without a health service"
		if g.Via != healthMethod {
			what = "by a method that does not exist"
		}
		a.say(Works, OK, "answers, %s%s", what, services)
	case g.Status == grpcOK:
		a.say(Works, OK, "OK%s", services)
	case g.Status == noGRPCStatus:
		a.say(Fails, Declined, "a gRPC response without grpc-status")
	case g.Status == 5 && a.Service != "":
		a.say(WorksBut, OK, "NOT_FOUND: the health service does not know %s%s", a.Service, services)
	default:
		a.say(WorksBut, OK, "%s%s", GRPCCode(g.Status), saying(g.Message))
	}
}

// grpcWeb makes the health check by gRPC-Web.
func (a *attempt) grpcWeb(c *wire.Conn) {
	body := string(healthRequest(a.Service))
	res := a.http1Exchange(c, bufio.NewReader(c), wire.Request{Method: "POST", Path: healthMethod, Proto: "HTTP/1.1", Fields: [][2]string{
		{"Host", a.Host}, {"User-Agent", userAgent}, {"Content-Type", "application/grpc-web+proto"},
		{"X-Grpc-Web", "1"}, {"Content-Length", strconv.Itoa(len(body))},
	}, Body: body})
	if res == nil {
		return
	}
	if !strings.HasPrefix(res.Header.Get("Content-Type"), "application/grpc-web") {
		a.say(NotOffered, Declined, "%d, as for any other POST", res.StatusCode)
	} else {
		a.say(Works, OK, "%s", webStatus(res))
	}
	a.finish(c)
}

// webStatus finds the status of a call of gRPC-Web, which is in a field, or at the end of the content.
func webStatus(res *wire.Response) string {
	status := res.Header.Get("Grpc-Status")
	if status == "" {
		_, rest, _ := strings.Cut(strings.ToLower(string(res.Content)), "grpc-status:")
		status, _, _ = strings.Cut(strings.TrimSpace(rest), "\r")
	}
	n, err := strconv.Atoi(strings.TrimSpace(status))
	if err != nil {
		return "a gRPC-Web response"
	}
	return GRPCCode(n)
}

// mixed sends gRPC calls and requests of REST by turns over one connection, as proxies do.
func (a *attempt) mixed(c *wire.Conn) {
	s := a.session(c, bufio.NewReader(c))
	defer a.keep(c, s)
	if !a.await(c, s) {
		return
	}
	for i := range 4 {
		if i%2 == 0 {
			st, ok := a.ask(c, s, healthRequest(""), a.call(healthMethod))
			if !ok {
				return
			}
			if g := grpcFacts(healthMethod, st); g == nil {
				a.log.Note("a gRPC call that was answered by an HTTP server")
				a.say(Fails, Declined, "a gRPC call was answered by the HTTP server: %s", st.Field(":status"))
				return
			}
			a.r.HTTP2.First = true
			continue
		}
		st, ok := a.ask(c, s, nil, a.get(a.Path))
		if !ok {
			return
		}
		if h := streamFacts(st); h.FromGRPC() {
			a.log.Note("a REST request that was answered by the gRPC server: the whole connection belongs to that server")
			a.r.HTTP = h
			a.say(Fails, Declined, "REST answered by the gRPC server: %d", h.Status)
			return
		}
	}
	a.r.HTTP2.Second = true
	if s.GoAway != nil && s.GoAway.Code != http2.ErrCodeNo {
		a.wentAway(s)
		return
	}
	a.say(Works, OK, "each answered by its server")
	a.depart(c, s)
}
