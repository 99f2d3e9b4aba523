// Package dispatch takes HTTP/2 connections apart by stream. Each stream goes to the server that its header block is
// for, and each server sees an HTTP/2 connection of its own with only its streams on it.
//
// It is the engine below package streams, and knows nothing of matchers: it is given a function that decides by a
// header list. docs/streams.md explains how it works; the names here are those of that page.
//
// A connection is in one of three modes:
//
//   - opening, until the first request has come. A goroutine reads, answers SETTINGS and PING if it has to wait, and
//     keeps what the first server will have to read (open.go).
//   - passing, while one server alone has streams. Its Read reads from the client's connection and its Write writes to
//     it; what passes is looked at, and recorded as far as the next mode will have to know it (pass.go).
//   - splitting, from the first stream on that is not for this server. One goroutine reads frames and one writes them;
//     header blocks are encoded anew on both sides, and credit is accounted for on both (split.go, upload.go,
//     download.go).
package dispatch
