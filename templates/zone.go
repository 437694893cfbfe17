package templates

// What a server takes in an upstream's zone of shared memory, measured and rounded up: see TestZoneSize. nginx keeps the
// server, its address (as large as the largest kind), the printed address and the name in slots of powers of two, 640
// bytes all in all in 1.22. Later versions add fields.
const (
	zoneBase      = 64 << 10
	zonePerServer = 1 << 10
)

// ZoneSize returns the bytes of shared memory that an upstream of so many servers needs. Too small a zone fails the whole
// configuration.
func ZoneSize(servers int) int64 {
	size := int64(zoneBase + servers*zonePerServer)
	return (size + zoneBase - 1) / zoneBase * zoneBase // in steps, so that a node more seldom changes it
}
