module mainspring/bench

// The oldest that has what this uses; timers are today's since 1.23.
go 1.24
