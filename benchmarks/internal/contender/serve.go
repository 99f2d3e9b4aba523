package contender

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"

	"github.com/oneport-go/oneport/benchmarks/internal/affinity"
)

// serverVariable is set in the environment of a process that is to be a server.
const serverVariable = "ONEPORT_BENCHMARK_SERVER"

// IsServer reports whether this process was started by [Start], and is to call [Serve].
func IsServer() bool { return os.Getenv(serverVariable) != "" }

// The process that is a server and the one that has started it talk in lines of JSON. The first line to the server is a
// [Config]; it answers with the addresses. After that each [Moment] is answered with a [Usage]. At the end of its input
// the server exits, so none outlives the process that has started it.
type reply struct {
	Error     string     `json:",omitempty"`
	Addresses *Addresses `json:",omitempty"`
	Usage     *Usage     `json:",omitempty"`
}

// Serve is the main function of a server process, with its standard input and output. It returns at the end of its
// input, or with an error. An interrupt from the terminal is for the process that has started it.
func Serve(in io.Reader, out io.Writer) error {
	signal.Ignore(os.Interrupt)
	from, to := json.NewDecoder(in), json.NewEncoder(out)
	var config Config
	if err := from.Decode(&config); err != nil {
		return fmt.Errorf("reading the configuration: %w", err)
	}
	s, err := start(config)
	if err != nil {
		return errors.Join(err, to.Encode(reply{Error: err.Error()}))
	}
	defer s.close()
	if err := to.Encode(reply{Addresses: &s.addresses}); err != nil {
		return err
	}
	commands := make(chan error, 1)
	go func() { commands <- answer(from, to) }()
	select {
	case err := <-commands:
		return err
	case err := <-s.ended:
		return fmt.Errorf("serving has ended: %w", err)
	}
}

// answer answers until the end of the input.
func answer(from *json.Decoder, to *json.Encoder) error {
	for {
		var m Moment
		if err := from.Decode(&m); err == io.EOF {
			return nil
		} else if err != nil {
			return fmt.Errorf("reading a command: %w", err)
		}
		u := measure(m)
		if err := to.Encode(reply{Usage: &u}); err != nil {
			return err
		}
	}
}

// start has a contender serve in this process.
func start(config Config) (*setup, error) {
	c, ok := Find(config.Contender)
	if !ok {
		return nil, fmt.Errorf("there is no contender %q", config.Contender)
	}
	if config.Processors != nil {
		if err := affinity.Pin(config.Processors); err != nil {
			return nil, err
		}
	}
	if config.Procs > 0 {
		runtime.GOMAXPROCS(config.Procs)
	}
	if config.Namespace {
		if err := prepareLoopback(config.RTT); err != nil {
			return nil, err
		}
	}
	s, err := newSetup(config)
	if err != nil {
		return nil, err
	}
	if err := c.serve(s); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}
