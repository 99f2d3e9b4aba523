package main

import (
	"io"
	"path/filepath"

	"github.com/oneport-go/oneport/benchmarks/internal/results"
)

// write writes everything that is made of the results, and prints the table.
func write(r *results.Results, dir string, out io.Writer) error {
	if err := r.Write(dir); err != nil {
		return err
	}
	return r.Print(out, dir)
}

// rewrite makes the report anew.
func rewrite(dir string, out io.Writer) error {
	r, err := results.Read(filepath.Join(dir, results.File))
	if err != nil {
		return err
	}
	return write(r, dir, out)
}

// compare says where two runs disagree.
func compare(dir, with string, out io.Writer) error {
	a, err := results.Read(filepath.Join(dir, results.File))
	if err != nil {
		return err
	}
	b, err := results.Read(filepath.Join(with, results.File))
	if err != nil {
		return err
	}
	return results.Compare(a, b, out)
}
