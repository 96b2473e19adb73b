package driver

// state is what the driver believes of one queue.
type state uint8

// The states; stateRows says what each means.
const (
	idle state = iota
	busy
	draining
	suspended
	failing
	banned
	killed
	destroying
	gone
	wedged
	stateCount
)

// stateRows name and explain the states.
var stateRows = [stateCount]struct{ name, sentence string }{
	idle:       {"idle", "nothing of it is in the ring; the next command makes it busy"},
	busy:       {"busy", "commands are in the ring; the last stamp makes it idle"},
	draining:   {"draining", "commands are in the ring and none follows, because it is to be suspended or to get another priority; the last stamp makes it suspended"},
	suspended:  {"suspended", "nothing of it is in the ring, and nothing comes before a resume"},
	failing:    {"failing", "a command is to blame, or was killed with another one; the firmware owes its stamp, and the loss is reported with it"},
	banned:     {"banned", "its work was given up; what is left in the ring runs out, and only its end follows"},
	killed:     {"killed", "its end is wanted; commands may still be in the ring"},
	destroying: {"destroying", "DestroyContext was sent; the memory is kept until the firmware took it"},
	gone:       {"gone", "its memory is free; final"},
	wedged:     {"wedged", "the device was given up with the queue on it; final, the process is replaced"},
}

// String names the state.
func (s state) String() string { return stateRows[s].name }

// event is what may happen to a queue.
type event uint8

// The events; eventRows explains them.
const (
	kick event = iota
	hold
	drained
	release
	mark
	lose
	kill
	sendDestroy
	destroyed
	forget
	wedge
	eventCount
)

// eventRows name and explain the events.
var eventRows = [eventCount]struct{ name, sentence string }{
	kick:        {"kick", "the driver puts commands into the ring"},
	hold:        {"hold", "no more commands are to follow: a suspend, or another priority"},
	drained:     {"drained", "the stamp of the last command in the ring was seen"},
	release:     {"release", "commands may follow again"},
	mark:        {"mark", "a fault, a time-out or a channel error named a command of it"},
	lose:        {"lose", "the stamp of a marked command was seen: it is off the GPU, and the loss is reported"},
	kill:        {"kill", "the entity's end is wanted"},
	sendDestroy: {"send destroy", "the driver sends DestroyContext, and nothing of it is in the ring"},
	destroyed:   {"destroyed", "the firmware took DestroyContext: it has forgotten the context and flushed its cache"},
	forget:      {"forget", "it ends without a message: the firmware never heard of it"},
	wedge:       {"wedge", "the device is given up"},
}

// String names the event.
func (e event) String() string { return eventRows[e].name }
