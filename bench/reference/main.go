// Reference: the original's architecture in Go, to be measured beside scratchd.
//
// net/http answers; its handler turns the query into JSON and puts the line into a buffered channel for each backend.
// One goroutine writes the file, one produces to Kafka. A line that was answered is in this process' memory and nowhere
// else: that is what the original promises, and it is cheaper than what scratchd promises.
//
// The producer has scratchd's own settings (idempotent, acks=all, the same linger), the file is flushed as often as
// scratchd's, and a full channel makes handlers wait, so that no line is dropped to be fast.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"log"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

const (
	buffered      = 10000
	flushInterval = 100 * time.Millisecond
	stopTimeout   = 10 * time.Second
)

var gif = []byte("GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff" +
	"!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;")

// toJSON converts a query as the original did: parse it, keep the last value of each name, encode the map.
func toJSON(query string) ([]byte, error) {
	parsed, err := url.ParseQuery(query)
	if err != nil {
		return nil, err
	}
	values := make(map[string]string, len(parsed))
	for name, all := range parsed {
		values[name] = all[len(all)-1]
	}
	return json.Marshal(values)
}

// write appends lines to the file until the channel is closed; what is buffered reaches the file at each flush.
func write(path string, lines <-chan []byte) {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		log.Fatal(err)
	}
	buffer := bufio.NewWriterSize(file, 1<<16)
	ticker := time.NewTicker(flushInterval)
	defer ticker.Stop()
	for {
		select {
		case line, open := <-lines:
			if !open {
				if err := errors.Join(buffer.Flush(), file.Close()); err != nil {
					log.Fatal(err)
				}
				return
			}
			if _, err := buffer.Write(line); err != nil {
				log.Fatal(err)
			}
			if err := buffer.WriteByte('\n'); err != nil {
				log.Fatal(err)
			}
		case <-ticker.C:
			if err := buffer.Flush(); err != nil {
				log.Fatal(err)
			}
		}
	}
}

// produce hands lines to librdkafka until the channel is closed, and waits for what is in flight.
func produce(brokers, topic string, lines <-chan []byte) {
	producer, err := kafka.NewProducer(&kafka.ConfigMap{
		"bootstrap.servers":  brokers,
		"client.id":          "reference",
		"enable.idempotence": true,
		"acks":               "all",
		"linger.ms":          5,
		"message.timeout.ms": 0,
		"partitioner":        "murmur2_random",
	})
	if err != nil {
		log.Fatal(err)
	}
	go func() {
		for event := range producer.Events() {
			if message, ok := event.(*kafka.Message); ok && message.TopicPartition.Error != nil {
				log.Println("not delivered:", message.TopicPartition.Error)
			}
		}
	}()
	for line := range lines {
		message := &kafka.Message{
			TopicPartition: kafka.TopicPartition{Topic: &topic, Partition: kafka.PartitionAny},
			Value:          line,
		}
		for {
			err := producer.Produce(message, nil)
			if err == nil {
				break
			}
			var failed kafka.Error
			if !errors.As(err, &failed) || failed.Code() != kafka.ErrQueueFull {
				log.Fatal(err)
			}
			time.Sleep(time.Millisecond)
		}
	}
	producer.Flush(int(stopTimeout.Milliseconds()))
	producer.Close()
}

func main() {
	listen := flag.String("listen", "127.0.0.1:9006", "where to listen")
	path := flag.String("file", "", "the log file")
	brokers := flag.String("kafka", "", "bootstrap servers; empty: no Kafka")
	topic := flag.String("topic", "scratch", "the topic")
	flag.Parse()

	var backends []chan []byte
	var running sync.WaitGroup
	start := func(run func(<-chan []byte)) {
		lines := make(chan []byte, buffered)
		backends = append(backends, lines)
		running.Add(1)
		go func() {
			defer running.Done()
			run(lines)
		}()
	}
	start(func(lines <-chan []byte) { write(*path, lines) })
	if *brokers != "" {
		start(func(lines <-chan []byte) { produce(*brokers, *topic, lines) })
	}

	mux := http.NewServeMux()
	mux.HandleFunc("/track", func(response http.ResponseWriter, request *http.Request) {
		line, err := toJSON(request.URL.RawQuery)
		if err != nil || len(line) == 2 {
			http.Error(response, "bad query", http.StatusBadRequest)
			return
		}
		for _, lines := range backends {
			lines <- line
		}
		response.Header().Set("Content-Type", "image/gif")
		response.Header().Set("Cache-Control", "no-store")
		_, _ = response.Write(gif) // whoever has gone away needs no answer
	})
	server := &http.Server{Addr: *listen, Handler: mux, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 75 * time.Second}

	stop, forget := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer forget()
	go func() {
		<-stop.Done()
		within, cancel := context.WithTimeout(context.Background(), stopTimeout)
		defer cancel()
		_ = server.Shutdown(within) // what is not answered by then never is
	}()
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
	for _, lines := range backends {
		close(lines)
	}
	running.Wait()
}
