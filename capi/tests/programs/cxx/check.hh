#include "../check.h"
#include <cstddef>
#include <new>
#include <string>
#include <vector>
