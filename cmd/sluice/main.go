// Command sluice keeps nginx in step with a living fleet of Socket.IO and WebSocket nodes.
package main

import (
	"context"
	"os"
)

func main() { os.Exit(execute(context.Background(), os.Args[1:], os.Stderr)) }
