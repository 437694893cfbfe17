package templates

// What a server takes in an upstream's zone of shared memory. nginx keeps the server, its address (as large as the largest
// kind), the address in print and the name there, each in a slot of a power of two: measured up to 900 bytes in 1.22 and
// 931 in 1.30, for unix sockets with long paths. The rest is room for what versions to come add.
const (
	zoneBase      = 64 << 10
	zonePerServer = 1280
)

// ZoneSize returns the bytes of shared memory that an upstream of so many servers needs. Too small a zone fails the whole
// configuration.
func ZoneSize(servers int) int64 {
	size := zoneBase + int64(servers)*zonePerServer
	return (size + zoneBase - 1) / zoneBase * zoneBase // in steps, so that the size seldom changes with a node
}
