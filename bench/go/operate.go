package main

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"
)

// operate does what count.rs asks for, so many times, and prints the allocations of the whole process.
func operate(arguments []string) error {
	if len(arguments) < 2 {
		return fmt.Errorf("operate go OPERATION --times=N [--deadline] is expected, not %q", arguments)
	}
	flags := flag.NewFlagSet("operate", flag.ContinueOnError)
	times := flags.Int64("times", 0, "")
	deadline := flags.Bool("deadline", false, "")
	if err := flags.Parse(arguments[2:]); err != nil {
		return err
	}
	switch name := arguments[1]; name {
	case "deadline_set", "deadline_wait":
		connection := connectIdle()
		for n := range *times {
			connection.operate(*deadline, &clockSink)
			if n%burst == 0 {
				runtime.Gosched()
			}
		}
		runtime.KeepAlive(connection)
	case "read_deadline":
		var timeout time.Duration
		if *deadline {
			timeout = time.Hour
		}
		own := must(os.Executable())
		command := exec.Command(filepath.Join(filepath.Dir(own), "bench"), "ping",
			serveEcho(4096, timeout).String(), fmt.Sprintf("--messages=%d", *times))
		command.Stderr = os.Stderr
		if err := command.Run(); err != nil {
			return err
		}
	default:
		return fmt.Errorf("%q is no operation", name)
	}
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	fmt.Println("allocations:", stats.Mallocs)
	return nil
}
