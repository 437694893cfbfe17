package templates

import "time"

// Control is what belongs to one gateway's machine and to one reload. The files made of it are not part of the Bundle's
// revision: two gateways with other paths, and two reloads of the same bundle, have the same revision.
type Control struct {
	ReloadID string // answered by the control server, to prove that this very reload is live
	Revision string // goes into the access log
	Socket   string // absolute path of the unix socket that the control server listens on

	// The rest is for a nginx.conf of ours only (not Config.HTTPOnly).
	Modules               []string // absolute paths for load_module
	User                  string   // of the workers, when the master is root
	PIDFile               string
	ErrorLog              string
	WorkerProcesses       int           // 0 is auto
	WorkerConnections     int           // per worker, both sides counted
	WorkerRlimitNofile    int           // 0 leaves the limit as it is
	WorkerShutdownTimeout time.Duration // a backstop for workers of an older generation
	TempDir               string        // client bodies and upstream answers that do not fit into memory
}
