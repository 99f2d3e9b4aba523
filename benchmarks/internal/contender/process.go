package contender

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// A Process is a contender that serves.
type Process struct {
	Addresses

	cmd       *exec.Cmd
	in        io.WriteCloser
	to        *json.Encoder
	from      *json.Decoder
	said      tail
	namespace *namespace
}

// Start runs a contender in a process of its own: the program that is running, started once more.
func Start(config Config) (*Process, error) {
	self, err := os.Executable()
	if c, ok := Find(config.Contender); ok && c.dropIn {
		self, err = buildDropIn()
	}
	if err != nil {
		return nil, err
	}
	p := &Process{cmd: exec.Command(self)}
	p.cmd.Env = append(os.Environ(), serverVariable+"=1")
	p.cmd.Stderr = &p.said
	p.cmd.WaitDelay = stopTimeout // for what it has started, if that keeps the output open
	if config.Namespace {
		if err := inNamespace(p.cmd); err != nil {
			return nil, err
		}
	}
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting a server process: %w", err)
	}
	p.to, p.from = json.NewEncoder(p.in), json.NewDecoder(out)
	r, err := p.ask(config)
	if err == nil && r.Addresses == nil {
		err = errors.New("it has not said where it serves")
	}
	if err == nil && config.Namespace {
		p.namespace, err = namespaceOf(p.cmd.Process.Pid)
	}
	if err != nil {
		p.Stop() // what is wrong is known
		return nil, fmt.Errorf("starting %s: %w", config.Contender, err)
	}
	p.Addresses = *r.Addresses
	return p, nil
}

// ask sends the server a line and returns its answer.
func (p *Process) ask(v any) (reply, error) {
	var r reply
	if err := p.to.Encode(v); err != nil {
		return r, fmt.Errorf("talking to the server process: %w%s", err, &p.said)
	}
	if err := p.from.Decode(&r); err != nil {
		return r, fmt.Errorf("the server process does not answer: %w%s", err, &p.said)
	}
	if r.Error != "" {
		return r, errors.New(r.Error)
	}
	return r, nil
}

// Usage returns what the process has used.
func (p *Process) Usage(m Moment) (Usage, error) {
	r, err := p.ask(m)
	if err != nil {
		return Usage{}, err
	}
	if r.Usage == nil {
		return Usage{}, errors.New("the server process has not said what it has used")
	}
	return *r.Usage, nil
}

// Dial connects to the address from where the server is.
func (p *Process) Dial(address string) (net.Conn, error) {
	if p.namespace != nil {
		return p.namespace.dial(address)
	}
	return net.Dial("tcp", address)
}

// Said returns the end of what the process has written to its standard error.
func (p *Process) Said() string { return p.said.String() }

// Stop ends the process and waits for that. A process that does not end by itself is killed.
func (p *Process) Stop() error {
	p.in.Close()
	if p.namespace != nil {
		p.namespace.close()
	}
	timer := time.AfterFunc(stopTimeout, func() { p.cmd.Process.Kill() })
	defer timer.Stop()
	if err := p.cmd.Wait(); err != nil {
		return fmt.Errorf("the server process ended with %w%s", err, &p.said)
	}
	return nil
}

const stopTimeout = 10 * time.Second

// tail keeps the end of what is written to it.
type tail struct {
	mu   sync.Mutex
	kept []byte
}

const tailSize = 2 << 10

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, p...)
	if extra := len(t.kept) - tailSize; extra > 0 {
		t.kept = append(t.kept[:0], t.kept[extra:]...)
	}
	return len(p), nil
}

// String returns what was kept, ready to be put behind an error.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.kept) == 0 {
		return ""
	}
	return "; it said: " + strings.TrimSpace(string(t.kept))
}
