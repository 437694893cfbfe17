package nginx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// What the kernel tells of sockets over netlink: linux/inet_diag.h and linux/unix_diag.h. Of all states only the two that
// are asked for cross over, so that a machine with many closing sockets costs nothing.
const (
	stateEstablished = 1
	stateListen      = 10

	inetRequestSize = 56
	inetAnswerSize  = 72
	unixRequestSize = 24
	unixAnswerSize  = 16

	unixShowName = 1
	unixShowPeer = 4
	unixAttrName = 0
	unixAttrPeer = 2
)

// tcpSocket is a TCP socket that is established or listens.
type tcpSocket struct {
	inode  uint64
	listen bool
	local  uint16 // port
	remote netip.AddrPort
}

// eachTCP shows every established and every listening TCP socket of this network namespace.
func eachTCP(show func(tcpSocket)) error {
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		request := make([]byte, inetRequestSize)
		request[0], request[1] = family, unix.IPPROTO_TCP
		binary.NativeEndian.PutUint32(request[4:], 1<<stateEstablished|1<<stateListen)
		err := diagnose(request, func(m []byte) {
			if len(m) < inetAnswerSize {
				return
			}
			address := netip.AddrFrom4([4]byte(m[24:]))
			if m[0] == unix.AF_INET6 {
				address = netip.AddrFrom16([16]byte(m[24:]))
			}
			show(tcpSocket{
				inode:  uint64(binary.NativeEndian.Uint32(m[68:])),
				listen: m[1] == stateListen,
				local:  binary.BigEndian.Uint16(m[4:]),
				remote: netip.AddrPortFrom(address, binary.BigEndian.Uint16(m[6:])),
			})
		})
		if family == unix.AF_INET6 && errors.Is(err, unix.ENOENT) {
			return nil // a kernel without IPv6
		}
		if err != nil {
			return fmt.Errorf("list TCP sockets: %w", err)
		}
	}
	return nil
}

// unixSocket is a connected unix socket.
type unixSocket struct {
	inode, peer uint64
	path        string // that it, or the listener that it came from, is bound to; empty for one that has connected itself
}

// eachUnix shows every connected unix socket of this network namespace.
func eachUnix(show func(unixSocket)) error {
	request := make([]byte, unixRequestSize)
	request[0] = unix.AF_UNIX
	binary.NativeEndian.PutUint32(request[4:], 1<<stateEstablished)
	binary.NativeEndian.PutUint32(request[12:], unixShowName|unixShowPeer)
	err := diagnose(request, func(m []byte) {
		if len(m) < unixAnswerSize {
			return
		}
		s := unixSocket{inode: uint64(binary.NativeEndian.Uint32(m[4:]))}
		attrs, err := nl.ParseRouteAttr(m[unixAnswerSize:])
		if err != nil {
			return
		}
		for _, a := range attrs {
			switch a.Attr.Type {
			case unixAttrName:
				s.path = strings.TrimRight(string(a.Value), "\x00")
			case unixAttrPeer:
				s.peer = uint64(binary.NativeEndian.Uint32(a.Value))
			}
		}
		show(s)
	})
	if err != nil {
		return fmt.Errorf("list unix sockets: %w", err)
	}
	return nil
}

// diagnose asks the kernel for sockets and shows each answer, without its header; it is not to be kept. The functions of the library
// that ask for sockets are of no use here: they read the paths of unix sockets beyond their ends, and dump every state.
func diagnose(request []byte, show func([]byte)) error {
	req := nl.NewNetlinkRequest(unix.SOCK_DIAG_BY_FAMILY, unix.NLM_F_DUMP)
	req.AddRawData(request)
	return req.ExecuteIter(unix.NETLINK_SOCK_DIAG, unix.SOCK_DIAG_BY_FAMILY, func(m []byte) bool {
		show(m)
		return true
	})
}
