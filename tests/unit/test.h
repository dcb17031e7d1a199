/* test.h: what every unit test includes, in the order that cmocka.h needs. */
#ifndef PORTHOLE_TEST_H
#define PORTHOLE_TEST_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#endif
