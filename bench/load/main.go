// Load: HTTP/1.1 requests from one thread over many connections, every one different; prints what came of them as JSON.
//
//	load -to 127.0.0.1:9006 -connections 64 -seconds 5 'GET /track?n={n} HTTP/1.1\r\nHost: any.test\r\n\r\n'
//
// `{n}` becomes ten digits that no other request of the run has (`-first` keeps runs apart).
//
// Without `-rate` it is a closed loop: each connection sends its next request when its answer is here, which finds the
// server's capacity. With `-rate` it is an open loop: request i is due at i/rate after the start, whatever became of
// those before it. It is sent on a connection that waits for nothing, or as soon as there is one, and its latency counts
// from when it was due. So a server that stands still for 100 ms is charged with every request that would have come
// meanwhile, which a closed loop would not even have sent (coordinated omission).
//
// Everything is one epoll loop without allocation, so that it is never the server that waits for us as long as it has a
// core of its own.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"math"
	"net"
	"runtime/debug"
	"sort"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

const (
	mark         = "{n}"
	digits       = 10
	epollPwait2  = 441 // sleeps by the nanosecond, where epoll_wait knows milliseconds
	giveUpAfter  = 5 * time.Second
	connectBurst = 100 // below any backlog
)

type connection struct {
	fd    int
	due   time.Duration // of the request whose answer is awaited, since the start
	busy  bool
	got   int // bytes of the answer so far
	total int // of the answer, 0 while its head is not complete
	head  []byte
}

type result struct {
	Begun      float64 `json:"begun"` // seconds since 1970
	Sent       int     `json:"sent"`
	Answered   int     `json:"answered"`   // with 200
	Other      int     `json:"other"`      // answers with another status
	Failed     int     `json:"failed"`     // connections that broke
	Unanswered int     `json:"unanswered"` // at the end, those too that were due and not sent
	ElapsedS   float64 `json:"elapsed_s"`
	CPUS       float64 `json:"load_cpu_s"`
}

type load struct {
	template    []byte
	places      []int
	number      int
	epoll       int
	byFD        map[int]*connection
	idle        []*connection
	begun       time.Time
	latencies   []time.Duration
	result      result
	outstanding int
	buffer      [65536]byte
}

// connect opens the connections before anything is measured.
func (l *load) connect(to string, count int, apart time.Duration) {
	address, err := net.ResolveTCPAddr("tcp4", to)
	if err != nil {
		log.Fatal(err)
	}
	peer := &syscall.SockaddrInet4{Port: address.Port}
	copy(peer.Addr[:], address.IP.To4())
	for i := 0; i < count; i++ {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			log.Fatal("socket: ", err)
		}
		if err := syscall.Connect(fd, peer); err != nil {
			log.Fatal("connect: ", err)
		}
		if err := syscall.SetNonblock(fd, true); err != nil {
			log.Fatal(err)
		}
		if err := syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1); err != nil {
			log.Fatal(err)
		}
		event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(fd)}
		if err := syscall.EpollCtl(l.epoll, syscall.EPOLL_CTL_ADD, fd, &event); err != nil {
			log.Fatal(err)
		}
		one := &connection{fd: fd, head: make([]byte, 0, 1024)}
		l.byFD[fd] = one
		l.idle = append(l.idle, one)
		time.Sleep(apart)
		if i%connectBurst == connectBurst-1 {
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// send sends the next request, which was due at `due`.
func (l *load) send(one *connection, due time.Duration) {
	for _, place := range l.places {
		number := l.number
		for i := digits - 1; i >= 0; i-- {
			l.template[place+i] = byte('0' + number%10)
			number /= 10
		}
	}
	l.number++
	one.busy, one.due, one.got, one.total, one.head = true, due, 0, 0, one.head[:0]
	l.outstanding++
	l.result.Sent++
	if sent, err := syscall.Write(one.fd, l.template); err != nil || sent != len(l.template) {
		l.fail(one)
	}
}

func (l *load) fail(one *connection) {
	l.result.Failed++
	if one.busy {
		l.outstanding--
	}
	delete(l.byFD, one.fd)
	_ = syscall.Close(one.fd)
}

// receive reads what there is, and returns whether the answer is complete.
func (l *load) receive(one *connection) bool {
	count, err := syscall.Read(one.fd, l.buffer[:])
	if err == syscall.EAGAIN || err == syscall.EINTR {
		return false
	}
	if err != nil || count <= 0 || !one.busy {
		l.fail(one)
		return false
	}
	data := l.buffer[:count]
	if one.total == 0 {
		if len(one.head) > 0 {
			one.head = append(one.head, data...)
			data = one.head
		}
		end := bytes.Index(data, []byte("\r\n\r\n"))
		if end < 0 {
			if len(one.head) == 0 {
				one.head = append(one.head, data...)
			}
			return false
		}
		one.total = end + 4 + contentLength(data[:end])
		if bytes.HasPrefix(data, []byte("HTTP/1.1 200 ")) {
			l.result.Answered++
		} else {
			l.result.Other++
		}
		one.got = len(data)
	} else {
		one.got += count
	}
	if one.got < one.total {
		return false
	}
	one.busy = false
	l.outstanding--
	l.latencies = append(l.latencies, time.Since(l.begun)-one.due)
	return true
}

// contentLength finds the length in a head; the servers that are measured write it in one of two ways.
func contentLength(head []byte) int {
	at := bytes.Index(head, []byte("\r\nContent-Length: "))
	if at < 0 {
		at = bytes.Index(head, []byte("\r\ncontent-length: "))
	}
	if at < 0 {
		return 0
	}
	length := 0
	for _, digit := range head[at+18:] {
		if digit < '0' || digit > '9' {
			break
		}
		length = 10*length + int(digit-'0')
	}
	return length
}

// wait returns the events that there are within `timeout`.
func (l *load) wait(events []syscall.EpollEvent, timeout time.Duration) int {
	if timeout < 0 {
		timeout = 0
	}
	span := syscall.NsecToTimespec(int64(timeout))
	count, _, errno := syscall.Syscall6(epollPwait2, uintptr(l.epoll), uintptr(unsafe.Pointer(&events[0])),
		uintptr(len(events)), uintptr(unsafe.Pointer(&span)), 0, 0)
	if errno == syscall.EINTR {
		return 0
	}
	if errno != 0 {
		log.Fatal("epoll_pwait2: ", errno)
	}
	return int(count)
}

// closed sends on each connection as soon as its answer is here.
func (l *load) closed(length time.Duration) {
	events := make([]syscall.EpollEvent, 512)
	for _, one := range l.idle {
		l.send(one, time.Since(l.begun))
	}
	for now := time.Duration(0); len(l.byFD) > 0 && l.outstanding > 0 && now < length+giveUpAfter; {
		for _, event := range events[:l.wait(events, 100*time.Millisecond)] {
			one := l.byFD[int(event.Fd)]
			if one != nil && l.receive(one) && now < length {
				l.send(one, time.Since(l.begun))
			}
		}
		now = time.Since(l.begun)
	}
}

// open sends by the clock, and returns how many requests were due.
func (l *load) open(length time.Duration, rate float64) int {
	events := make([]syscall.EpollEvent, 512)
	count := int(length.Seconds() * rate)
	dueAt := func(i int) time.Duration { return time.Duration(float64(i) / rate * float64(time.Second)) }
	for i, now := 0, time.Duration(0); len(l.byFD) > 0 && (i < count || l.outstanding > 0) && now < length+giveUpAfter; {
		now = time.Since(l.begun)
		for i < count && len(l.idle) > 0 && dueAt(i) <= now {
			one := l.idle[0] // the one that has waited longest: all of them are used in turn
			l.idle = l.idle[1:]
			l.send(one, dueAt(i))
			i++
		}
		timeout := 10 * time.Millisecond
		if i < count && len(l.idle) > 0 {
			timeout = dueAt(i) - time.Since(l.begun)
		}
		for _, event := range events[:l.wait(events, timeout)] {
			one := l.byFD[int(event.Fd)]
			if one != nil && l.receive(one) {
				l.idle = append(l.idle, one)
			}
		}
	}
	return count
}

// finish prints what was counted at once, and the latencies when they are sorted.
func (l *load) finish(due int) {
	l.result.ElapsedS = time.Since(l.begun).Seconds()
	l.result.Begun = float64(l.begun.UnixNano()) / 1e9
	l.result.Unanswered = due - l.result.Answered - l.result.Other
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err == nil {
		l.result.CPUS = float64(usage.Utime.Nano()+usage.Stime.Nano()) / 1e9
	}
	print(l.result)
	sort.Slice(l.latencies, func(i, j int) bool { return l.latencies[i] < l.latencies[j] })
	at := func(share float64) float64 {
		if len(l.latencies) == 0 {
			return 0
		}
		index := int(math.Ceil(share*float64(len(l.latencies)))) - 1
		return float64(l.latencies[index].Microseconds()) / 1000
	}
	print(map[string]float64{"p50": at(0.5), "p99": at(0.99), "p99.9": at(0.999), "max": at(1)})
}

func print(what any) {
	out, err := json.Marshal(what)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(out))
}

func main() {
	to := flag.String("to", "127.0.0.1:9006", "the server")
	connections := flag.Int("connections", 64, "how many")
	seconds := flag.Float64("seconds", 5, "for how long")
	rate := flag.Float64("rate", 0, "requests a second, open loop; 0: closed loop, as many as it takes")
	apart := flag.Duration("apart", 0, "between two connections being opened")
	first := flag.Int("first", 0, "number of the first request")
	flag.Parse()
	if flag.NArg() != 1 {
		log.Fatal(`one argument is needed, the request with \r\n for its line ends`)
	}

	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err == nil {
		limit.Cur = limit.Max
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit) // where it does not do, socket(2) will say so
	}
	debug.SetGCPercent(-1) // what is allocated is allocated before the start
	epoll, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		log.Fatal(err)
	}
	length := time.Duration(*seconds * float64(time.Second))
	l := &load{number: *first, epoll: epoll, byFD: make(map[int]*connection, *connections)}
	request := strings.ReplaceAll(flag.Arg(0), `\r\n`, "\r\n")
	for {
		at := strings.Index(request, mark)
		if at < 0 {
			break
		}
		l.places = append(l.places, at)
		request = request[:at] + strings.Repeat("0", digits) + request[at+len(mark):]
	}
	l.template = []byte(request)
	l.latencies = make([]time.Duration, 0, int(*seconds*200000)+*connections)
	l.connect(*to, *connections, *apart)
	l.begun = time.Now()
	if *rate > 0 {
		l.finish(l.open(length, *rate))
	} else {
		l.closed(length)
		l.finish(l.result.Sent)
	}
}
