package wire

// The handshake of go-plugin. The cookie is no secret; it only tells a person
// who starts a plugin by hand what it is.
const (
	CookieKey   = "GPUWM_PLUGIN_COOKIE"
	CookieValue = "gpuwm-backend"
	// PluginName is the one plugin of the set.
	PluginName = "backend"
)

// What a plugin process learns from its environment.
const (
	// EnvInstance is the instance's random name; it marks the process, and all
	// its children, as belonging to a record.
	EnvInstance = "GPUWM_INSTANCE"
	// EnvLease is how long the process lives without a host, as a Go duration.
	EnvLease = "GPUWM_LEASE"
	// EnvUsageFile is where engines count executed workgroups.
	EnvUsageFile = "GPUWM_USAGE_FILE"
	// EnvLogLevel is the least level of log lines that are kept.
	EnvLogLevel = "GPUWM_LOG_LEVEL"
)
