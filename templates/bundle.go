package templates

import "io/fs"

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
