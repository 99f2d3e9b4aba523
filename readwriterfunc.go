package oneport

import "io"

// ReadWriterFunc is [ReaderFunc] for a function that answers the client while it looks, for a protocol in which the
// server speaks first or the client does not say what it is before it is answered. What it writes goes to the client at
// once, and the server of the route knows nothing of it. w is the connection as it was accepted; reading from it takes
// bytes away that the other routes and the server would miss.
func ReadWriterFunc(f func(w io.Writer, r io.Reader) bool) Matcher {
	return &readerMatcher{func(r io.Reader) bool { return f(r.(*suspended).preview.conn, r) }}
}
