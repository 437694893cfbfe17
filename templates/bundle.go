package templates

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"io"
	"io/fs"
	"slices"
	"strings"
)

// Bundle is a rendered configuration: what a gateway's nginx reads.
type Bundle struct {
	Files []File // by Path
	// Revision is the hex SHA-256 over the paths and contents of Files.
	Revision string
}

// File is one file of a Bundle.
type File struct {
	Path string // relative, with slashes: "nginx.conf", "http/site-chat.conf"
	Data []byte
	Mode fs.FileMode // 0644, or 0600 for a private key
}

// Revision returns the hex SHA-256 over the paths and contents of files, which are sorted by path. Lengths are hashed
// too, so that nothing can move from one file into the next unseen.
func Revision(files []File) string {
	h := sha256.New()
	var length [8]byte
	for _, f := range files {
		binary.BigEndian.PutUint64(length[:], uint64(len(f.Path)))
		h.Write(length[:])
		_, _ = io.WriteString(h, f.Path) // a hash takes everything
		binary.BigEndian.PutUint64(length[:], uint64(len(f.Data)))
		h.Write(length[:])
		h.Write(f.Data)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func sortFiles(files []File) {
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
}
