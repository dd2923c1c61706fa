/* side_hiredis.c -- one measurement of Redis by hiredis: side_hiredis SOCKET get|set|load COUNT.  Prints
 * operations a second. */
#include "data.h"

#include <hiredis/hiredis.h>

static redisContext *redis;
static char value[VALUE_SIZE];

static void check(redisReply *reply, int type) {
    if (reply == NULL || reply->type != type) {
        fprintf(stderr, "redis: %s\n", reply == NULL ? redis->errstr : reply->str);
        exit(1);
    }
    freeReplyObject(reply);
}

static void get(const char *key) {
    check(redisCommand(redis, "GET %b", key, (size_t)KEY_LENGTH), REDIS_REPLY_STRING);
}

static void set(const char *key) {
    check(redisCommand(redis, "SET %b %b EX %d", key, (size_t)KEY_LENGTH, value, sizeof value, (int)TTL_S),
          REDIS_REPLY_STATUS);
}

static void run(void (*operation)(const char *key), const char *keys, int count) {
    for (int i = 0; i < count; i++) operation(keys + (size_t)i * KEY_LENGTH);
}

int main(int argc, char **argv) {
    if (argc != 4) return fprintf(stderr, "usage: side_hiredis SOCKET get|set|load COUNT\n"), 2;
    int count = atoi(argv[3]);
    redis = redisConnectUnix(argv[1]);
    if (redis == NULL || redis->err) return fprintf(stderr, "redis: %s\n", redis->errstr), 1;
    fill_value(value);
    if (strcmp(argv[2], "load") == 0) {
        for (int i = 0; i < count; i++) {
            char key[KEY_LENGTH];
            write_key(key, i);
            set(key);
        }
        puts("0");
        return 0;
    }
    void (*operation)(const char *key) = strcmp(argv[2], "get") == 0 ? get : set;
    run(operation, random_keys(WARM_UP, 1), WARM_UP);
    char *keys = random_keys(count, 2);
    double start = now();
    run(operation, keys, count);
    printf("%.3f\n", count / (now() - start));
    return 0;
}
