/* Gives proxy/observe what lives to its right: facts of hosts, matchers. Once, before threads
 * start. */
#ifndef SLUICE_SERVER_OBSERVE_WIRING_H
#define SLUICE_SERVER_OBSERVE_WIRING_H

void observe_wire(void);

#endif
