package fw_test

import (
	"testing"

	"github.com/gpuwm/gpuwm/plugins/hw"
	"github.com/gpuwm/gpuwm/plugins/mali/abi"
)

func TestJobRuns(t *testing.T) {
	h := newReady(t, "", nil)
	v := h.vm(1)
	g := h.group(v, 0, 1)
	g.start()
	c := v.kernel("workgroup=1ms", 10)
	q := g.queues[0]
	q.job(c.instructions()...)
	h.run(5 * ms)
	if q.seqno() != 0 || q.extract() != 8*8 {
		t.Errorf("seqno %d, extract %#x while the job runs", q.seqno(), q.extract())
	}
	h.run(6 * ms)
	if r := c.report(); q.seqno() != 1 || !q.done() || r.Status != hw.StatusDone || r.Done != 10 || r.ExecutedTime != 10*ms {
		t.Errorf("seqno %d, extract %#x, report %+v\n%s", q.seqno(), q.extract(), r, h.lines())
	}
	v.output(10)
	if h.get(v.at(q.sync)+abi.Sync64Status) != 0 {
		t.Error("the sync object says that it failed")
	}
	if h.get(g.out()+abi.GroupAck)&abi.GroupSyncUpdate == 0 || h.reg(abi.RegJobIntStat)&1 == 0 {
		t.Errorf("nobody was told: ack %#x", h.get(g.out()+abi.GroupAck))
	}
	if v := h.fw.Violations(); len(v) > 0 {
		t.Error(v)
	}
}
