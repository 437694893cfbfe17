package e2e

import (
	"fmt"
	"net"
	"time"
)

// clientAddress returns the i-th of the loopback addresses from which test clients come. They differ in the third byte,
// since ip_hash does not look at the last one.
func clientAddress(i int) string { return fmt.Sprintf("127.0.%d.%d", 1+i%250, 1+i/250) }

// dialerFrom dials from the i-th client address.
func dialerFrom(i int) *net.Dialer {
	return &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(clientAddress(i))}, Timeout: 5 * time.Second}
}
