module github.com/soheilhy/cmux

go 1.26.0

require (
	github.com/oneport-go/oneport v0.0.0
	golang.org/x/net v0.62.0
)

require (
	golang.org/x/crypto v0.58.0 // indirect
	golang.org/x/text v0.43.0 // indirect
)

replace github.com/oneport-go/oneport => ../
