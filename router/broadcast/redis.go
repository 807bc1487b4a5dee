package broadcast

import (
	"context"
	"fmt"
	"time"

	"github.com/centrifugal/centrifuge"

	"github.com/oneport-edge/oneport/router/redisstore"
)

// Redis is where instances meet: one server of version 5 or later, Sentinel, or a Cluster
// of version 7 or later, for its channels are sharded. See [redisstore.Options].
type Redis struct {
	redisstore.Options
	// Prefix stands before all keys; "" means "oneport:broadcast".
	Prefix string
}

const (
	// answerFor bounds how long Redis is waited for; centrifuge finds that it is silent
	// within that and twice its ping's 400 ms.
	answerFor = 2 * time.Second
	// partitions is into how many parts the channels of a cluster are divided.
	partitions = 64
)

func (r *Redis) check() error {
	_, err := r.Parse()
	return err
}

// attach has a node meet others at Redis, by the broker that it gives. It connects.
func (r *Redis) attach(node *centrifuge.Node) (_ centrifuge.Broker, closeAll func(), err error) {
	a, err := r.Parse()
	if err != nil {
		return nil, nil, err
	}
	conf := centrifuge.RedisShardConfig{
		User: a.User, Password: a.Password, DB: a.DB, TLSConfig: a.TLS, ClientName: "oneport",
		ConnectTimeout: time.Second, IOTimeout: answerFor,
	}
	broker := centrifuge.RedisBrokerConfig{Prefix: r.Prefix}
	switch a.Kind {
	case redisstore.Sentinel:
		conf.SentinelAddresses, conf.SentinelMasterName, conf.SentinelTLSConfig = a.Addresses, a.Master, a.TLS
	case redisstore.Cluster:
		conf.ClusterAddresses = a.Addresses
		broker.NumShardedPubSubPartitions, broker.UsePrecomputedPartitionTags = partitions, true
	case redisstore.Socket:
		conf.Address = "unix://" + a.Addresses[0]
	default:
		conf.Address = a.Addresses[0]
	}
	if broker.Prefix == "" {
		broker.Prefix = "oneport:broadcast"
	}
	shard, err := centrifuge.NewRedisShard(node, conf)
	if err != nil {
		return nil, nil, fmt.Errorf("broadcast: %w", err)
	}
	broker.Shards = []*centrifuge.RedisShard{shard}
	b, err := centrifuge.NewRedisBroker(node, broker)
	if err != nil {
		shard.Close()
		return nil, nil, fmt.Errorf("broadcast: %w", err)
	}
	closeAll = func() {
		_ = b.Close(context.Background()) // it does not wait, and gives no error
		shard.Close()
	}
	p, err := centrifuge.NewRedisPresenceManager(node, centrifuge.RedisPresenceManagerConfig{
		Prefix: broker.Prefix, Shards: broker.Shards, PresenceTTL: time.Minute,
	})
	if err != nil {
		closeAll()
		return nil, nil, fmt.Errorf("broadcast: %w", err)
	}
	node.SetController(b)
	node.SetPresenceManager(p)
	return b, closeAll, nil
}
