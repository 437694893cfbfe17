package nginx

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// defaultUser returns the user that nginx's workers become, empty when the master is not root and they cannot. nginx takes
// the group of the same name.
func defaultUser() (string, error) {
	if os.Geteuid() != 0 {
		return "", nil
	}
	for _, name := range []string{"nginx", "www-data", "nobody"} {
		_, noUser := user.Lookup(name)
		_, noGroup := user.LookupGroup(name)
		if noUser == nil && noGroup == nil {
			return name, nil
		}
	}
	return "", errors.New("there is no user for nginx's workers (nginx, www-data, or nobody with a group of that name): " +
		"make one, or name one in the settings")
}

// warnUnreachable warns when the workers' user cannot get to the directory where they keep what does not fit into memory.
func (d *Driver) warnUnreachable() {
	if d.o.User == "" {
		return
	}
	u, err := user.Lookup(d.o.User)
	if err != nil {
		return // nginx -t says so
	}
	if dir := unreachable(filepath.Join(d.o.Dir, "temp"), u); dir != "" {
		d.log.Warn("nginx's workers cannot get to their temporary files: large bodies will be answered with 500",
			"user", d.o.User, "directory", dir, "mend", fmt.Sprintf("chmod o+x %s", dir))
	}
}

// unreachable returns the first directory on the way to path that u may not pass, empty when there is none.
func unreachable(path string, u *user.User) string {
	groups, _ := u.GroupIds()
	if parent := filepath.Dir(path); parent != path {
		if dir := unreachable(parent, u); dir != "" {
			return dir
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		return path
	}
	owner, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	bit := os.FileMode(0o001)
	if strconv.Itoa(int(owner.Uid)) == u.Uid {
		bit = 0o100
	} else {
		for _, group := range groups {
			if strconv.Itoa(int(owner.Gid)) == group {
				bit = 0o010
			}
		}
	}
	if info.Mode().Perm()&bit == 0 {
		return path
	}
	return ""
}
