/* rfc3339.c -- points in time as servers write them. */
#include "rfc3339.h"

#include <stdint.h>
#include <string.h>

/* Reads exactly `digits` digits and moves on; -1 when there are fewer. */
static int number(const char **at, int digits) {
    int value = 0;
    for (int i = 0; i < digits; i++, (*at)++) {
        if (**at < '0' || **at > '9') return -1;
        value = 10 * value + (**at - '0');
    }
    return value;
}

static bool skip(const char **at, const char *one_of) {
    if (**at == '\0' || strchr(one_of, **at) == NULL) return false;
    (*at)++;
    return true;
}

static bool is_leap(int year) {
    return (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
}

/* Days since 1970; false when there is no such day. */
static bool to_days(int year, int month, int day, int64_t *days) {
    static const int LENGTHS[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    if (year < 1970 || month < 1 || month > 12 || day < 1) return false;
    if (day > LENGTHS[month - 1] + (month == 2 && is_leap(year))) return false;
    int64_t before = year - 1;
    *days = 365 * (int64_t)(year - 1970) + (before / 4 - before / 100 + before / 400) -
            (1969 / 4 - 1969 / 100 + 1969 / 400);
    for (int m = 1; m < month; m++) *days += LENGTHS[m - 1] + (m == 2 && is_leap(year));
    *days += day - 1;
    return true;
}

/* "Z" or "+01:00"; seconds east of Greenwich. */
static bool read_zone(const char **at, int *east) {
    *east = 0;
    if (skip(at, "Zz")) return true;
    bool west = **at == '-';
    if (!skip(at, "+-")) return false;
    int hours = number(at, 2);
    skip(at, ":");
    int minutes = number(at, 2);
    if (hours < 0 || hours > 23 || minutes < 0 || minutes > 59) return false;
    *east = (west ? -1 : 1) * (3600 * hours + 60 * minutes);
    return true;
}

bool fpc_rfc3339_parse(const char *at, double *seconds) {
    int64_t days;
    double fraction = 0, unit = 0.1;
    int east;
    int year = number(&at, 4);
    if (year < 0 || !skip(&at, "-")) return false;
    int month = number(&at, 2);
    if (month < 0 || !skip(&at, "-")) return false;
    int day = number(&at, 2);
    if (!skip(&at, "Tt ")) return false;
    int hour = number(&at, 2);
    if (hour < 0 || hour > 23 || !skip(&at, ":")) return false;
    int minute = number(&at, 2);
    if (minute < 0 || minute > 59 || !skip(&at, ":")) return false;
    int second = number(&at, 2);
    if (second < 0 || second > 60) return false; /* 60: a leap second */
    if (skip(&at, ".")) {
        if (*at < '0' || *at > '9') return false;
        for (; *at >= '0' && *at <= '9'; at++, unit /= 10) fraction += unit * (*at - '0');
    }
    if (!read_zone(&at, &east) || *at != '\0' || !to_days(year, month, day, &days)) return false;
    *seconds = (double)(86400 * days + (3600 * hour + 60 * minute + second - east)) + fraction;
    return true;
}
