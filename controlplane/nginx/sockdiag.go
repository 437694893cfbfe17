package nginx

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"time"

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

	diagBuffer  = 64 << 10 // the kernel fills up to 32 KB
	diagTimeout = 5 * time.Second
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
		for attrs := m[unixAnswerSize:]; len(attrs) >= unix.SizeofNlAttr; {
			size := int(binary.NativeEndian.Uint16(attrs))
			if size < unix.SizeofNlAttr || size > len(attrs) {
				break
			}
			value := attrs[unix.SizeofNlAttr:size]
			switch binary.NativeEndian.Uint16(attrs[2:]) {
			case unixAttrName:
				s.path = strings.TrimRight(string(value), "\x00")
			case unixAttrPeer:
				if len(value) >= 4 {
					s.peer = uint64(binary.NativeEndian.Uint32(value))
				}
			}
			attrs = attrs[min((size+3)&^3, len(attrs)):]
		}
		show(s)
	})
	if err != nil {
		return fmt.Errorf("list unix sockets: %w", err)
	}
	return nil
}

// diagnose asks the kernel for sockets and shows each answer, without its header; it is not to be kept.
func diagnose(request []byte, show func([]byte)) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer func() { _ = unix.Close(fd) }()
	limit := unix.NsecToTimeval(diagTimeout.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit); err != nil {
		return os.NewSyscallError("setsockopt", err)
	}
	message := make([]byte, unix.NLMSG_HDRLEN+len(request))
	binary.NativeEndian.PutUint32(message, uint32(len(message)))
	binary.NativeEndian.PutUint16(message[4:], unix.SOCK_DIAG_BY_FAMILY)
	binary.NativeEndian.PutUint16(message[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	copy(message[unix.NLMSG_HDRLEN:], request)
	if err := unix.Sendto(fd, message, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return os.NewSyscallError("sendto", err)
	}
	buffer := make([]byte, diagBuffer)
	for {
		n, _, err := unix.Recvfrom(fd, buffer, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("recvfrom", err)
		}
		answers, err := syscall.ParseNetlinkMessage(buffer[:n])
		if err != nil {
			return fmt.Errorf("understand the kernel: %w", err)
		}
		for _, a := range answers {
			switch a.Header.Type {
			case unix.NLMSG_DONE:
				return nil
			case unix.NLMSG_ERROR:
				if len(a.Data) < 4 {
					return errors.New("the kernel refuses without a reason")
				}
				return os.NewSyscallError("sock_diag", unix.Errno(-int32(binary.NativeEndian.Uint32(a.Data))))
			}
			show(a.Data)
		}
	}
}
