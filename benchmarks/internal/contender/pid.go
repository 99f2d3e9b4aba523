package contender

// Pid is the number of the process.
func (p *Process) Pid() int { return p.cmd.Process.Pid }
