-- Whole numbers in doubles. A count times microseconds passes 2^53, above which a double skips numbers, so such
-- products are never made: they are divided piece by piece. Everything else stays below 2^53 by itself.
--
-- Keys: none. Arguments: none. Result: none; gives `floor_div`, `ceil_div`, `mul_div` and `mul_div_up` to what
-- follows. TTL: nothing is stored. Complexity: O(1).

local EXACT = 9007199254740992
local fmod = math.fmod

local function floor_div(a, b)
  return (a - fmod(a, b)) / b
end

local function ceil_div(a, b)
  local rest = fmod(a, b)
  return (a - rest) / b + (rest > 0 and 1 or 0)
end

-- a * b / d rounded down, and the rest. Exact for a up to 2^46, b up to 2^49, d up to 2^45,
-- as long as the result is below 2^53: long division with digits of 7 bits, whose remainder stays below 128 * d.
local function mul_div(a, b, d)
  -- The operator is several times as fast as the function, and as exact as long as the sum of its operands is.
  local product = a * b
  if product + d < EXACT then
    local rest = product % d
    return (product - rest) / d, rest
  end
  local quotient, rest = 0, 0
  for shift = 42, 0, -7 do
    local digit = fmod(math.floor(b / 2 ^ shift), 128)
    local value = rest * 128 + a * digit
    rest = fmod(value, d)
    quotient = quotient * 128 + (value - rest) / d
  end
  return quotient, rest
end

-- The same, rounded up.
local function mul_div_up(a, b, d)
  local quotient, rest = mul_div(a, b, d)
  return quotient + (rest > 0 and 1 or 0)
end
