// What is known of a run: the answers of the server, joined. Each replaces the ends of its columns.

const LISTS = ["rate", "samples", "bytes_out", "bytes_in", "staleness"];
const MAPS = ["metrics", "shares", "named"];

export class RunData {
  constructor() {
    this.about = {};
    this.head = {};
    this.asked = [];
    this.columns = empty();
    this.workers = { index: [] };
    this.lanes = [];
    this.epochs = [];
    this.evaluated = [];
    this.log = [];
    this.servers = { newest: [], snapshots: { count: 0 } };
    this.width = 1;
    this.broken = 0;
  }

  apply(answer) {
    this.about = answer.about;
    if (answer.columns === undefined) return; // The run cannot be read.
    if (answer.reset) {
      this.columns = empty();
      this.epochs = [];
      this.log = [];
      this.evaluated = answer.evaluated;
    }
    join(this.columns, answer.columns, answer.from);
    this.epochs.push(...answer.epochs);
    this.log.push(...answer.log);
    for (const name of ["head", "asked", "workers", "servers", "width", "broken"]) this[name] = answer[name];
    if (answer.lanes) this.lanes = answer.lanes;
    this.sums = sums(this.columns);
  }

  get isSimulation() {
    return Boolean(this.about.simulation);
  }

  // The places along an axis, and which buckets have one. Rows and bytes of windows that a restarted server
  // has forgotten would go back: the later ones count.
  axis(by) {
    const { rate, samples } = this.columns;
    const length = rate.length;
    if (by === "time") {
      const x = Array.from({ length }, (_, place) => (place + 1) * this.width);
      if (length) x[length - 1] = Math.min(x[length - 1], Math.max(this.head.seconds, (length - 1) * this.width));
      return { x, places: x.map((_, place) => place) };
    }
    const values = by === "rows" ? samples : this.sums.bytes;
    const places = [];
    let least = Infinity;
    for (let place = length - 1; place >= 0; place--) {
      if (values[place] !== null && values[place] < least) {
        least = values[place];
        places.push(place);
      }
    }
    places.reverse();
    return { x: places.map((place) => values[place]), places };
  }

  // Values of epochs at the buckets in which they ended, with nothing in between.
  atEpochs(name, list = this.epochs) {
    const column = new Array(this.columns.rate.length).fill(null);
    for (const entry of list) {
      const place = Math.min(column.length - 1, Math.floor(entry.t / this.width));
      if (place >= 0 && typeof entry.logs[name] === "number") column[place] = entry.logs[name];
    }
    return column;
  }
}

function empty() {
  const columns = { bands: [], servers: {} };
  for (const name of LISTS) columns[name] = [];
  for (const name of MAPS) columns[name] = {};
  return columns;
}

function join(own, other, from) {
  const length = other.rate.length + from;
  const joined = (mine, theirs) => fill(mine ?? [], from).concat(theirs);
  for (const name of LISTS) own[name] = joined(own[name], other[name]);
  for (const name of MAPS) {
    for (const key of Object.keys(other[name])) own[name][key] = joined(own[name][key], other[name][key]);
    for (const key of Object.keys(own[name])) if (!(key in other[name])) delete own[name][key];
  }
  own.bands = other.bands.map((band, place) => joined(own.bands[place], band));
  for (const [name, each] of Object.entries(other.servers)) {
    own.servers[name] ??= {};
    for (const [server, values] of Object.entries(each)) {
      own.servers[name][server] = joined(own.servers[name][server], values);
    }
  }
  return length;
}

// A column that has begun later than the others has nothing before.
function fill(column, length) {
  const kept = column.slice(0, length);
  while (kept.length < length) kept.push(null);
  return kept;
}

function sums(columns) {
  let total = 0;
  const bytes = columns.bytes_out.map((out, place) => (total += out + columns.bytes_in[place]));
  return { bytes };
}
