//go:build !unix

package main

// connectionLimit is 0 where a process may have as many connections as it likes.
func connectionLimit() int { return 0 }
